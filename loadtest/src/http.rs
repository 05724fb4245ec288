//! A minimal HTTP/1.1 client: response heads, body lengths, and a blocking connection for scrapes.
//!
//! The response to a push is a hundred bytes, and a general client costs more CPU than sending the push. Heads and chunk
//! sizes are parsed by httparse; reading is done here, with a bound on everything that the peer controls.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use thiserror::Error;

/// Longer heads are an error.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longer bodies are an error, compressed or not.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Header lines in a head; more are an error.
const HEADERS_MAX: usize = 64;
/// Size of the read buffer.
const READ_BYTES: usize = 64 * 1024;

/// Why an exchange failed.
#[derive(Debug, Error)]
pub enum HttpError {
    #[error("the peer sent no valid HTTP/1.1 response")]
    Malformed(#[from] httparse::Error),
    #[error("the response head is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("invalid Content-Length, or one beyond {BODY_BYTES_MAX} bytes")]
    ContentLength,
    #[error("invalid chunk size, or one beyond {BODY_BYTES_MAX} bytes")]
    ChunkSize,
    #[error("the response body is longer than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("connection failed")]
    Io(#[from] io::Error),
}

/// How the end of a body is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// It has this many bytes.
    Known(usize),
    /// It ends with a chunk of length 0.
    Chunked,
    /// It ends when the server closes the connection.
    UntilClose,
}

/// The parts of a response head that the load test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Length of the head.
    pub bytes: usize,
    /// How the body ends.
    pub body_length: BodyLength,
    /// The server closes the connection after the response.
    pub closes: bool,
    /// The body is compressed with gzip.
    pub gzip: bool,
}

/// Parses the head of a response; `None` if it is incomplete.
pub fn parse_head(text: &[u8]) -> Result<Option<ResponseHead>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(bytes) = response.parse(text)? else {
        return if text.len() > HEAD_BYTES_MAX { Err(HttpError::HeadTooLarge) } else { Ok(None) };
    };
    let status = response.code.ok_or(httparse::Error::Status)?;
    let mut head =
        ResponseHead { status, bytes, body_length: BodyLength::UntilClose, closes: false, gzip: false };
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let bytes = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            let bytes = bytes.filter(|bytes| *bytes <= BODY_BYTES_MAX);
            head.body_length = BodyLength::Known(bytes.ok_or(HttpError::ContentLength)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            head.body_length = BodyLength::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("content-encoding") {
            head.gzip = value.eq_ignore_ascii_case(b"gzip");
        }
    }
    if head.body_length == BodyLength::UntilClose {
        head.closes = true;
    }
    Ok(Some(head))
}

/// Decodes a chunked body into `body` and returns its encoded length; `None` if the last chunk is missing.
pub fn decode_chunks(text: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, HttpError> {
    body.clear();
    let mut at = 0;
    loop {
        let parsed = httparse::parse_chunk_size(&text[at..]).map_err(|_| HttpError::ChunkSize)?;
        let httparse::Status::Complete((line, size)) = parsed else { return Ok(None) };
        let size = usize::try_from(size).ok().filter(|size| *size <= BODY_BYTES_MAX);
        let size = size.ok_or(HttpError::ChunkSize)?;
        at += line;
        let Some(chunk) = text.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// A blocking client with one persistent connection, for scrapes and for requests that are not part of the load.
pub struct Client {
    address: SocketAddr,
    host: String,
    stream: Option<TcpStream>,
    timeout: Duration,
    buffers: Buffers,
}

/// Reused for every response, because expositions are large.
#[derive(Default)]
struct Buffers {
    read: Vec<u8>,
    /// Head and body as received.
    text: Vec<u8>,
    /// The body without chunk headers, if it was chunked.
    body: Vec<u8>,
}

/// A complete response.
#[derive(Debug)]
pub struct Response<'c> {
    /// Status code.
    pub status: u16,
    /// The body, not decompressed.
    pub body: &'c [u8],
    /// The body is compressed with gzip.
    pub gzip: bool,
    /// Length of head and body as received.
    pub wire_bytes: usize,
}

impl Client {
    /// A client for one address; it connects with the first request.
    pub fn new(address: SocketAddr, host: &str, timeout: Duration) -> Self {
        Self { address, host: host.to_owned(), stream: None, timeout, buffers: Buffers::default() }
    }

    /// Sends GET.
    pub fn get(&mut self, path: &str) -> Result<Response<'_>, HttpError> {
        self.request("GET", path, "")
    }

    /// Sends GET and accepts gzip.
    pub fn get_gzip(&mut self, path: &str) -> Result<Response<'_>, HttpError> {
        self.request("GET", path, "Accept-Encoding: gzip\r\n")
    }

    /// Sends DELETE.
    pub fn delete(&mut self, path: &str) -> Result<Response<'_>, HttpError> {
        self.request("DELETE", path, "")
    }

    fn request(&mut self, method: &str, path: &str, headers: &str) -> Result<Response<'_>, HttpError> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.host);
        let (head, wire_bytes) = self.exchange(request.as_bytes())?;
        let Buffers { text, body, .. } = &self.buffers;
        let body = match head.body_length {
            BodyLength::Chunked => body,
            BodyLength::Known(_) | BodyLength::UntilClose => &text[head.bytes..],
        };
        Ok(Response { status: head.status, body, gzip: head.gzip, wire_bytes })
    }

    /// Sends a request and reads the response into the buffers. After an error, the next request uses a new connection.
    fn exchange(&mut self, request: &[u8]) -> Result<(ResponseHead, usize), HttpError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request)?;
        let Buffers { read, text, body } = &mut self.buffers;
        read.resize(READ_BYTES, 0);
        text.clear();
        let head = loop {
            read_more(&mut stream, read, text)?;
            if let Some(head) = parse_head(text)? {
                break head;
            }
        };
        match head.body_length {
            BodyLength::Known(bytes) => {
                text.reserve(bytes);
                while text.len() < head.bytes + bytes {
                    read_more(&mut stream, read, text)?;
                }
                text.truncate(head.bytes + bytes);
            }
            // The body may have many megabytes, so it is decoded only once its end may have arrived.
            BodyLength::Chunked => loop {
                if text.ends_with(b"0\r\n\r\n") && decode_chunks(&text[head.bytes..], body)?.is_some() {
                    break;
                }
                read_more(&mut stream, read, text)?;
            },
            BodyLength::UntilClose => {
                let bytes_max = HEAD_BYTES_MAX + BODY_BYTES_MAX;
                (&mut stream).take(bytes_max as u64).read_to_end(text)?;
                if text.len() > bytes_max {
                    return Err(HttpError::BodyTooLarge);
                }
            }
        }
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok((head, text.len()))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }
}

/// Decompresses a body into `plain`.
pub fn gunzip(compressed: &[u8], plain: &mut Vec<u8>) -> Result<(), HttpError> {
    plain.clear();
    let decoder = flate2::bufread::MultiGzDecoder::new(compressed);
    if decoder.take(BODY_BYTES_MAX as u64 + 1).read_to_end(plain)? > BODY_BYTES_MAX {
        return Err(HttpError::BodyTooLarge);
    }
    Ok(())
}

fn read_more(stream: &mut TcpStream, buffer: &mut [u8], text: &mut Vec<u8>) -> Result<(), HttpError> {
    let got = stream.read(buffer)?;
    if got == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    text.extend_from_slice(&buffer[..got]);
    if text.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
        return Err(HttpError::BodyTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_once_it_is_complete() {
        let text =
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\ncontent-encoding: gzip\r\n\r\nabc";
        let wanted = ResponseHead {
            status: 503,
            bytes: text.len() - 3,
            body_length: BodyLength::Known(3),
            closes: false,
            gzip: true,
        };
        assert_eq!(parse_head(text).expect("a head"), Some(wanted));
        for end in 0..text.len() - 4 {
            assert_eq!(parse_head(&text[..end]).expect("not an error"), None);
        }
    }

    #[test]
    fn rejects_what_is_no_response_and_lengths_beyond_the_bound() {
        assert!(parse_head(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n").is_err());
        let endless = [&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; HEAD_BYTES_MAX]].concat();
        assert!(matches!(parse_head(&endless), Err(HttpError::HeadTooLarge)));
    }

    #[test]
    fn chunks_are_joined() {
        let mut body = Vec::new();
        assert_eq!(decode_chunks(b"3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n", &mut body).expect("chunks"), Some(21));
        assert_eq!(body, b"abcd");
        assert_eq!(decode_chunks(b"3\r\nabc\r\n1\r\n", &mut body).expect("chunks"), None);
        assert!(decode_chunks(b"ffffffffffffffff\r\nabc", &mut body).is_err());
    }
}
