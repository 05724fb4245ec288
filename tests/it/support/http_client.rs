//! A small HTTP/1.1 client that sends exactly the bytes a test asks for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any response of a working gateway takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// A response. The chunked transfer coding is decoded, the content coding is not.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names as sent, and values.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first header with this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection for any number of requests, one at a time.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to a port on 127.0.0.1.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        stream.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        Ok(Self { stream: BufReader::with_capacity(256 << 10, stream) })
    }

    /// Sends a request and reads the response. `Content-Length` is sent with PUT, POST and non-empty bodies.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut message = head(method, path, headers);
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            message.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(body);
        self.exchange(method, &message)
    }

    /// Sends a request with a chunked body and reads the response.
    pub fn request_chunked(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        chunks: &[&[u8]],
    ) -> io::Result<Response> {
        let mut message = head(method, path, headers);
        message.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in chunks {
            message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            message.extend_from_slice(chunk);
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(b"0\r\n\r\n");
        self.exchange(method, &message)
    }

    /// Sends bytes unchanged and reads one final response.
    pub fn exchange(&mut self, method: &str, message: &[u8]) -> io::Result<Response> {
        // The server may reject a request before it has read the body; the response matters, not the broken pipe.
        if let Err(error) = self.stream.get_mut().write_all(message)
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            return Err(error);
        }
        loop {
            let response = self.read(method)?;
            if response.status != 100 {
                return Ok(response);
            }
        }
    }

    /// Sends bytes unchanged and reads nothing.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Whether a response has begun to arrive, or the server has closed the connection.
    pub fn has_response(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).expect("a socket");
        let arrived = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("a socket");
        !matches!(arrived, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads one response, possibly an interim one.
    pub fn read(&mut self, method: &str) -> io::Result<Response> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| invalid(format!("status line {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid(format!("header line {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            response.body = self.chunks()?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| invalid(format!("content-length {length:?}")))?;
            response.body.resize(length, 0);
            self.stream.read_exact(&mut response.body)?;
        } else {
            self.stream.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size =
                usize::from_str_radix(&line, 16).map_err(|_| invalid(format!("chunk size {line:?}")))?;
            if size == 0 {
                // No trailers are expected.
                let end = self.line()?;
                return if end.is_empty() { Ok(body) } else { Err(invalid(format!("trailer {end:?}"))) };
            }
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(invalid(format!("{end:?} after a chunk")));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        line.strip_suffix("\r\n")
            .map(str::to_owned)
            .ok_or_else(|| invalid(format!("line without CR LF: {line:?}")))
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.into_bytes()
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
