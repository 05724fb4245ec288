//! HTTP/2 over TLS, with a client that sends single frames.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::http2_client::{Http2Client, Reply};
use crate::support::tls_client::{Identity, connect};
use crate::support::{Gateway, wait_for};

const PROTOCOL_ERROR: Reply = Reply::Reset(1);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A gateway with TLS; `settings` are further lines of the web configuration.
struct Server {
    gateway: Gateway,
    _folder: TempDir,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::new(&["localhost"]);
        let path = |name: &str| folder.path().join(name);
        fs::write(path("server.crt"), &identity.certificate_pem).expect("a file");
        fs::write(path("server.key"), &identity.key_pem).expect("a file");
        let text = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n";
        fs::write(path("web.yml"), text).expect("a file");
        let flag = format!("--web.config.file={}", path("web.yml").display());
        let flags = [&[&*flag], flags].concat();
        // Another process may take the port before the gateway binds it.
        for _ in 0..3 {
            let gateway = Gateway::begin(&flags);
            let listens = wait_for("the gateway to listen or to fail", TIMEOUT, || {
                let log = gateway.log();
                let (listens, fails) = (log.contains("TLS is enabled."), log.contains("gateway failed"));
                (listens || fails).then_some(listens)
            });
            if listens {
                return Self { gateway, _folder: folder };
            }
        }
        panic!("the gateway does not start with {flags:?}");
    }

    fn client(&self) -> Http2Client {
        Http2Client::open(self.gateway.port()).expect("HTTP/2")
    }

    /// Sends a request over HTTP/1.1 on a connection of its own.
    fn http1(&self, request: &str) -> String {
        self.try_http1(request).expect("a response with an announced end")
    }

    fn try_http1(&self, request: &str) -> io::Result<String> {
        let mut stream = connect(self.gateway.port(), None, &[b"http/1.1"])?;
        stream.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        Ok(String::from_utf8_lossy(&response).into_owned())
    }

    fn scrape(&self) -> String {
        self.http1("GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    }
}

#[test]
fn a_path_is_taken_as_it_was_sent() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (path, job) in [
        ("/metrics/job/C#tests", "C#tests"),
        ("/metrics/job/C%23escaped", "C#escaped"),
        ("/metrics/job/query?a=b#c", "query"),
        ("/metrics/job/<a> `b`", "<a> `b`"),
        ("/metrics/job/a\"b\\{c}|^", "a\\\"b\\\\{c}|^"),
        ("/metrics/job/\u{e9}", "\u{e9}"),
    ] {
        assert_eq!(client.request("PUT", path, &[], b"m 1\n").status(), 200, "{path}");
        let text = server.scrape();
        assert!(text.contains(&format!("m{{instance=\"\",job=\"{job}\"}} 1\n")), "{path}: {text}");
    }
    // A wrong group has the part before the `#`.
    assert!(!server.scrape().contains("job=\"C\""));
    assert_eq!(client.request("DELETE", "/metrics/job/C#tests", &[], b"").status(), 202);
    assert!(!server.scrape().contains("job=\"C#tests\""));
    assert!(server.scrape().contains("job=\"C#escaped\""));
}

#[test]
fn the_target_of_a_request_is_as_in_http_1() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.request("OPTIONS", "*", &[], b""), Reply::Response(200, Vec::new()));
    for path in ["", "#", "?x", "metrics/job/a", "/metrics/job/\t", "/metrics/job/\u{7f}"] {
        assert_eq!(client.request("PUT", path, &[], b"m 1\n"), PROTOCOL_ERROR, "{path:?}");
    }
    let get = [(":method", "GET"), (":scheme", "https"), (":path", "/-/ready")];
    assert_eq!(client.exchange(&get, Some(b"")).status(), 200, "without :authority");
    assert_eq!(client.request("GET", "/-/ready", &[("host", "other")], b"").status(), 200);
    assert_eq!(client.exchange(&get[..2], Some(b"")).status(), 400, "without :path");
    assert_eq!(client.exchange(&[(":method", "CONNECT"), (":authority", "a")], Some(b"")).status(), 404);
    assert_eq!(client.request("CONNECT", "/metrics", &[], b""), PROTOCOL_ERROR);
    assert!(!server.scrape().contains("\nm{"));
}

#[test]
fn difference_28_requests_of_http_2_are_checked_by_the_rfc() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let put = |scheme, path, authority| {
        [(":method", "PUT"), (":scheme", scheme), (":path", path), (":authority", authority)]
    };
    // Those that the official program resets or closes.
    for fields in [
        put("https", "/metrics/job/%zz", "a"),
        put("https", "*", "a"),
        put("https", "/metrics/job/a", "user@a"),
        put("ftp", "/metrics/job/a", "a"),
    ] {
        assert_eq!(client.exchange(&fields, Some(b"m 1\n")).status(), 400, "{fields:?}");
    }
    // Those that it accepts.
    for fields in [
        put("https", "https://a/metrics/job/a", "a"),
        put("https", "/metrics/job/a", ""),
        put("https", "/metrics/job/a", "a#b"),
    ] {
        assert_eq!(client.exchange(&fields, Some(b"m 1\n")), PROTOCOL_ERROR, "{fields:?}");
    }
    // h2 takes the head for one that cannot be decoded.
    let reply = server.client().put_to(b"/metrics/job/\xff", b"m 1\n");
    assert_eq!(reply, Reply::GoAway { last_stream: 0, code: 1 });
    let hosts = [("host", "a"), ("host", "b")];
    assert_eq!(client.request("PUT", "/metrics/job/a", &hosts, b"m 1\n").status(), 400);
    assert!(!server.scrape().contains("\nm{"));

    let many: Vec<(String, &str)> = (0..101).map(|number| (format!("x-{number}"), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(client.request("GET", "/metrics", &many, b"").status(), 431);

    // No `100 Continue` comes first, so the client gets the response to its body.
    let reply = client.request("PUT", "/metrics/job/a", &[("expect", "100-continue")], b"m 1\n");
    assert_eq!(reply, Reply::Response(200, Vec::new()));
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    assert!(client.settings.contains(&(MAX_CONCURRENT_STREAMS, 32)), "{:?}", client.settings);
}

#[test]
fn a_slow_body_gets_408_over_tls() {
    let server = Server::start(&["--web.request-timeout=1s"]);
    let mut client = server.client();
    let put = [(":method", "PUT"), (":scheme", "https"), (":path", "/metrics/job/a"), (":authority", "a")];
    assert_eq!(client.exchange(&put, None).status(), 408);
    assert_eq!(client.request("GET", "/-/ready", &[], b"").status(), 200, "the connection goes on");
    let response = server.http1("PUT /metrics/job/a HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nm");
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
}

#[test]
fn difference_28_a_rejected_connection_of_http_2_gets_a_goaway() {
    let server = Server::start(&["--web.connections-max=1"]);
    let mut body = String::new();
    for number in 0..300_000 {
        body.push_str(&format!("metric_with_a_long_name{{number=\"{number}\"}} {number}\n"));
    }
    let length = body.len();
    let push = format!(
        "PUT /metrics/job/a HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    assert!(server.http1(&push).starts_with("HTTP/1.1 200 "));

    // A client whose response is on its way keeps its connection, so there is no room for others.
    let mut busy = connect(server.gateway.port(), None, &[b"http/1.1"]).expect("it listens");
    busy.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
    let mut first = [0; 12];
    busy.read_exact(&mut first).expect("the response begins");
    assert_eq!(&first, b"HTTP/1.1 200");

    let reply = server.client().request("PUT", "/metrics/job/b", &[], b"m 1\n");
    assert_eq!(reply, Reply::GoAway { last_stream: 0, code: 0 });
    // Only one rejected connection at a time gets a response, and the last one may not have ended yet.
    let response =
        wait_for("a response", TIMEOUT, || server.try_http1("GET /-/ready HTTP/1.1\r\nhost: a\r\n\r\n").ok());
    assert!(response.starts_with("HTTP/1.1 503 ") && response.contains("retry-after: 1"), "{response}");

    let mut rest = Vec::new();
    busy.read_to_end(&mut rest).expect("the response ends");
    assert!(rest.len() > length);
    wait_for("the connection to be free", TIMEOUT, || {
        let mut client = Http2Client::open(server.gateway.port()).ok()?;
        (client.request("PUT", "/metrics/job/b", &[], b"m 1\n").status() == 200).then_some(())
    });
}
