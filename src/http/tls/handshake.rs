//! The handshake: chooses the configuration by the client's hello, within the deadline and the memory of a request's head.

use crate::runtime::address::Peer;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{Error, HandshakeKind, PeerIncompatible, ServerConnection};

use super::failures::{self, Failure};
use super::{
    Input, OUTPUT_BYTES_MAX, TlsTransport, later, poll_read_records, poll_write_records, send_records,
};
use crate::http::bridge::Bridge;
use crate::http::connection::linger;
use crate::http::deadlines::{ConnectionDeadline, Stage};
use crate::http::limits::{Connections, Handshake, Timeout};
use crate::http::transport::Transport;
use crate::web_config::tls::ServerConfigs;

/// How many bytes are read and discarded after a refusal, so that the client sees it.
const LINGER_BYTES_MAX: usize = 256 << 10;
/// The length of a record's header.
const HEADER_BYTES: usize = 5;
/// The alert `protocol_version`, for clients that get no configuration.
const PROTOCOL_VERSION_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 70];
/// The response of the official program to a client that does not encrypt.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Makes an encrypted connection. If that fails, closes the connection, counts and logs the reason, and returns `None`.
pub(in crate::http) async fn accept(
    bridge: Bridge,
    deadline: &Rc<ConnectionDeadline>,
    configs: &ServerConfigs,
    peer: Peer,
    connections: &Connections,
) -> Option<TlsTransport> {
    let mut attempt = Attempt {
        bridge,
        configs,
        deadline,
        acceptor: Acceptor::default(),
        first: FirstBytes::default(),
        tls: None,
    };
    let result = std::future::poll_fn(|context| {
        deadline.register(context.waker());
        if deadline.take_expired() {
            return Poll::Ready(Err(Failure::TimedOut));
        }
        if deadline.must_make_room() || deadline.stage() == Stage::Dropping {
            return Poll::Ready(Err(Failure::NoRoom));
        }
        attempt.poll(context)
    })
    .await;
    deadline.handshake_ended();
    match result {
        Ok(tls) => {
            let is_full = matches!(
                tls.handshake_kind(),
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
            );
            connections.count_handshake(if is_full { Handshake::Full } else { Handshake::Resumed });
            Some(TlsTransport::new(attempt.bridge, tls, deadline.clone()))
        }
        Err(failure) => {
            connections.count_handshake(failure.outcome());
            if matches!(failure, Failure::TimedOut) {
                connections.count_timeout(Timeout::Head);
            }
            failures::log(peer, &failure);
            if let Failure::Tls(_) | Failure::NoVersion | Failure::PlainHttp = failure {
                linger(&mut attempt.bridge, deadline, LINGER_BYTES_MAX).await;
            }
            None
        }
    }
}

/// A handshake in progress.
struct Attempt<'a> {
    bridge: Bridge,
    configs: &'a ServerConfigs,
    deadline: &'a ConnectionDeadline,
    acceptor: Acceptor,
    first: FirstBytes,
    /// `None` until the hello has arrived.
    tls: Option<Box<ServerConnection>>,
}

/// The first bytes of the connection.
#[derive(Default)]
struct FirstBytes {
    bytes: [u8; HEADER_BYTES],
    count: usize,
}

impl FirstBytes {
    fn add(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(HEADER_BYTES - self.count);
        self.bytes[self.count..self.count + count].copy_from_slice(&bytes[..count]);
        self.count += count;
    }

    /// Whether they may be the header of a handshake's or an alert's record.
    fn is_tls(&self) -> bool {
        matches!(self.bytes[0], 21 | 22) && self.bytes[1] < 0x10
    }

    /// Whether they begin a request: a method, then a target.
    fn is_http(&self) -> bool {
        let method = self.bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
        method.len() >= 3 && method.iter().all(u8::is_ascii_alphabetic)
    }
}

/// Input that remembers its first bytes.
struct HelloInput<'a, 'b, 'c> {
    input: Input<'b, 'c>,
    first: &'a mut FirstBytes,
}

impl io::Read for HelloInput<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.first.add(&buffer[..count]);
        Ok(count)
    }
}

impl Attempt<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Box<ServerConnection>, Failure>> {
        while self.tls.is_none() {
            ready!(self.poll_hello(context))?;
        }
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Pending };
            if !tls.is_handshaking() {
                if let Err(error) = self.configs.check(tls) {
                    return Poll::Ready(Err(Failure::Tls(error)));
                }
                // What is left to send is sent with the first response, or before the next wait.
                return self.tls.take().map_or(Poll::Pending, |tls| Poll::Ready(Ok(tls)));
            }
            ready!(poll_write_records(tls, &mut self.bridge, context))?;
            // Also if nothing is left to write: an earlier write may have been in flight at the last call.
            ready!(self.bridge.poll_sent(context))?;
            let count = ready!(poll_read_records(tls, &mut self.bridge, context))?;
            if count == 0 {
                return Poll::Ready(Err(Failure::Disconnected));
            }
            if !self.deadline.handshake_received(count) {
                return Poll::Ready(Err(Failure::NoMemory));
            }
            if let Err(error) = tls.process_new_packets() {
                send_records(tls, &mut self.bridge);
                return Poll::Ready(Err(Failure::Tls(error)));
            }
        }
    }

    /// Receives some of the client's hello, and begins the handshake if it is complete.
    fn poll_hello(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let input = Input { bridge: &mut self.bridge, context };
        let count = ready!(later(self.acceptor.read_tls(&mut HelloInput { input, first: &mut self.first })))?;
        if count == 0 {
            return Poll::Ready(Err(Failure::Disconnected));
        }
        if self.first.count < HEADER_BYTES {
            // rustls would refuse the first byte of a request already.
            return Poll::Ready(Ok(()));
        }
        if !self.first.is_tls() {
            if !self.first.is_http() {
                return Poll::Ready(Err(Failure::NotTls));
            }
            self.bridge.send_canned(PLAIN_HTTP);
            return Poll::Ready(Err(Failure::PlainHttp));
        }
        if !self.deadline.handshake_received(count) {
            return Poll::Ready(Err(Failure::NoMemory));
        }
        let accepted = match self.acceptor.accept() {
            Ok(None) => return Poll::Ready(Ok(())),
            Ok(Some(accepted)) => accepted,
            // Hellos lack this extension before TLS 1.2. rustls looks for it first.
            Err((Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired), _)) => {
                self.bridge.send_canned(PROTOCOL_VERSION_ALERT);
                return Poll::Ready(Err(Failure::NoVersion));
            }
            Err(refused) => return Poll::Ready(Err(self.refuse(refused))),
        };
        let Some(config) = self.configs.for_client(&accepted.client_hello()) else {
            self.bridge.send_canned(PROTOCOL_VERSION_ALERT);
            return Poll::Ready(Err(Failure::NoVersion));
        };
        // The costly part follows, and a client has more to send after it.
        if self.bridge.socket().is_closed_by_peer() {
            return Poll::Ready(Err(Failure::Disconnected));
        }
        let mut tls = match accepted.into_connection(config) {
            Ok(tls) => Box::new(tls),
            Err(refused) => return Poll::Ready(Err(self.refuse(refused))),
        };
        tls.set_buffer_limit(Some(OUTPUT_BYTES_MAX));
        self.tls = Some(tls);
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, (error, mut alert): (Error, AcceptedAlert)) -> Failure {
        let mut records = Vec::new();
        // Writing to memory succeeds.
        if alert.write_all(&mut records).is_ok() {
            self.bridge.send_canned(&records);
        }
        Failure::Tls(error)
    }
}

#[cfg(test)]
mod tests {
    use super::FirstBytes;

    #[test]
    fn requests_in_plain_text_are_recognized() {
        let is_http = |text: &[u8]| {
            let mut first = FirstBytes::default();
            text.chunks(2).for_each(|piece| first.add(piece));
            assert!(!first.is_tls(), "{text:?}");
            first.is_http()
        };
        for request in [
            "GET / HTTP/1.1",
            "GET http://a/",
            "DELETE /",
            "PATCH /",
            "PUT /m",
            "CONNECT a:1",
            "get /",
            "OPTIONS *",
        ] {
            assert!(is_http(request.as_bytes()), "{request}");
        }
        for other in ["\0\0\0\0\0", "SSH-2.0-x", "*1\r\n$4", "\r\n\r\n\r\n", "GE / HTTP"] {
            assert!(!is_http(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn records_of_a_handshake_are_recognized() {
        let mut first = FirstBytes::default();
        first.add(&[22, 3, 1, 2, 0, 1, 0, 1]);
        assert!(first.is_tls() && !first.is_http());
    }
}
