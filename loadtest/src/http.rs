//! As much of HTTP/1.1 as a client needs that knows what it asked for: the head of an answer, and how its body ends.
//!
//! Written here, because a push's answer is a hundred bytes and a general client costs more than sending it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memchr::memmem;

/// Heads beyond this are an error.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bodies beyond this are an error, packed or not.
const BODY_BYTES_MAX: usize = 1 << 30;
/// What is read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After that many bytes.
    Known(usize),
    /// With a chunk of length 0.
    Chunked,
    /// With the connection.
    UntilClosed,
}

/// What matters of the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// 200 and so on.
    pub status: u16,
    /// Length of the head itself.
    pub bytes: usize,
    /// How the body ends.
    pub length: Length,
    /// The server closes the connection afterwards.
    pub closes: bool,
    /// The body is gzip.
    pub gzip: bool,
}

/// Reads a head; `None` if it is not there wholly.
pub fn head(text: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(text, b"\r\n\r\n") else {
        if text.len() > HEAD_BYTES_MAX {
            bail!("a head of more than {HEAD_BYTES_MAX} bytes");
        }
        return Ok(None);
    };
    let mut lines = text[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok());
    let Some(status) = status else { bail!("no HTTP answer: {}", String::from_utf8_lossy(first)) };
    let mut head = Head { status, bytes: end + 4, length: Length::UntilClosed, closes: false, gzip: false };
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            let value = value.filter(|bytes| *bytes <= BODY_BYTES_MAX);
            head.length = Length::Known(value.context("a length that is no number, or too much")?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            head.length = Length::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.closes = value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            head.gzip = value.eq_ignore_ascii_case(b"gzip");
        }
    }
    if head.length == Length::UntilClosed {
        head.closes = true;
    }
    Ok(Some(head))
}

/// Takes the chunks of a body apart, into `body`; `None` if the last one is not there. Gives where it ends.
pub fn chunks(text: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>> {
    body.clear();
    let mut at = 0;
    loop {
        let Some(line) = memmem::find(&text[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&text[at..at + line]).unwrap_or_default();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
        let size = size.ok().filter(|bytes| *bytes <= BODY_BYTES_MAX);
        let size = size.context("a chunk without a length, or too long")?;
        at += line + 2;
        let Some(chunk) = text.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// A connection that waits: for scrapes and for questions beside the load.
pub struct Client {
    address: SocketAddr,
    host: String,
    stream: Option<TcpStream>,
    timeout: Duration,
    /// Memory for the next answer; expositions are large, and come again and again.
    memory: Memory,
}

#[derive(Default)]
struct Memory {
    piece: Vec<u8>,
    text: Vec<u8>,
    body: Vec<u8>,
}

/// An answer as a whole.
#[derive(Debug)]
pub struct Answer<'c> {
    /// 200 and so on.
    pub status: u16,
    /// As it came, but for chunks.
    pub body: &'c [u8],
    /// It is compressed.
    pub gzip: bool,
    /// As they came, with the head.
    pub wire_bytes: usize,
}

impl Client {
    /// A client for one address; it connects when it is needed.
    pub fn new(address: SocketAddr, host: &str, timeout: Duration) -> Self {
        Self { address, host: host.to_owned(), stream: None, timeout, memory: Memory::default() }
    }

    /// One request without a body.
    pub fn request(&mut self, method: &str, path: &str, gzip: bool) -> Result<Answer<'_>> {
        let (head, wire_bytes) = self.exchange(method, path, gzip)?;
        let Memory { text, body, .. } = &self.memory;
        let body = match head.length {
            Length::Chunked => body,
            Length::Known(_) | Length::UntilClosed => &text[head.bytes..],
        };
        Ok(Answer { status: head.status, body, gzip: head.gzip, wire_bytes })
    }

    /// GET.
    pub fn get(&mut self, path: &str) -> Result<Answer<'_>> {
        self.request("GET", path, false)
    }

    /// After an error the connection is gone.
    fn exchange(&mut self, method: &str, path: &str, gzip: bool) -> Result<(Head, usize)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                stream
            }
        };
        let encoding = if gzip { "Accept-Encoding: gzip\r\n" } else { "" };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{encoding}\r\n", self.host);
        stream.write_all(request.as_bytes())?;
        let Memory { piece, text, body } = &mut self.memory;
        piece.resize(PIECE_BYTES, 0);
        text.clear();
        let head = loop {
            read_more(&mut stream, piece, text)?;
            if let Some(head) = head(text)? {
                break head;
            }
        };
        match head.length {
            Length::Known(bytes) => {
                text.reserve(bytes);
                while text.len() < head.bytes + bytes {
                    read_more(&mut stream, piece, text)?;
                }
                text.truncate(head.bytes + bytes);
            }
            // A body of many megabytes is looked at once, when its end may be there.
            Length::Chunked => loop {
                if text.ends_with(b"0\r\n\r\n") && chunks(&text[head.bytes..], body)?.is_some() {
                    break;
                }
                read_more(&mut stream, piece, text)?;
            },
            Length::UntilClosed => {
                let most = HEAD_BYTES_MAX + BODY_BYTES_MAX;
                (&mut stream).take(most as u64).read_to_end(text)?;
                if text.len() > most {
                    bail!("a body of more than {BODY_BYTES_MAX} bytes");
                }
            }
        }
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok((head, text.len()))
    }
}

/// Decompresses a body into `plain`.
pub fn gunzip(packed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    plain.clear();
    let decoder = flate2::bufread::MultiGzDecoder::new(packed);
    if decoder.take(BODY_BYTES_MAX as u64 + 1).read_to_end(plain)? > BODY_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

fn read_more(stream: &mut TcpStream, piece: &mut [u8], text: &mut Vec<u8>) -> io::Result<()> {
    let got = stream.read(piece)?;
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    text.extend_from_slice(&piece[..got]);
    if text.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text =
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\ncontent-encoding: gzip\r\n\r\nabc";
        let wanted =
            Head { status: 503, bytes: text.len() - 3, length: Length::Known(3), closes: false, gzip: true };
        assert_eq!(head(text).expect("a head"), Some(wanted));
        for end in 0..text.len() - 4 {
            assert_eq!(head(&text[..end]).expect("not an error"), None);
        }
        assert!(head(b"SSH-2.0\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n").is_err());
    }

    #[test]
    fn chunks_are_put_together() {
        let mut body = Vec::new();
        assert_eq!(chunks(b"3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n", &mut body).expect("chunks"), Some(21));
        assert_eq!(body, b"abcd");
        assert_eq!(chunks(b"3\r\nabc\r\n1\r\n", &mut body).expect("chunks"), None);
        assert!(chunks(b"ffffffffffffffff\r\nabc", &mut body).is_err());
    }
}
