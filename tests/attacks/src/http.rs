//! HTTP/1.1 requests as bytes, and reading responses from a blocking connection.

use std::io::{self, BufRead, BufReader, Read};

/// Lines of a response head and of chunk sizes are not longer.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Header lines of a response; more are an error.
const HEADERS_MAX: usize = 100;

/// A complete request. Adds `Host`, and `Content-Length` unless the headers announce a length themselves.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = head(method, path, headers);
    let announces = |name: &str| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    };
    bytes.truncate(bytes.len() - 2);
    if !headers.iter().any(|(name, _)| announces(name)) && !matches!(method, "GET" | "HEAD") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A request head without a body.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\n");
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// A GET without further headers.
pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, &[], b"")
}

/// A PUT of a text body.
pub fn put(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("PUT", path, &[], body.as_ref())
}

/// A POST of a text body.
pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", path, &[], body.as_ref())
}

/// A DELETE of a group.
pub fn delete(path: &str) -> Vec<u8> {
    request("DELETE", path, &[], b"")
}

/// A response whose body was read to its end.
#[derive(Debug, Clone, Copy)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The server closes the connection.
    pub closes: bool,
}

/// Reads one response and appends its body to `body`, or discards it. Responses to HEAD have no body.
pub fn read_response(
    reader: &mut BufReader<impl Read>,
    method: &[u8],
    mut body: Option<&mut Vec<u8>>,
) -> io::Result<Response> {
    let mut line = Vec::new();
    loop {
        read_line(reader, &mut line)?;
        let status = std::str::from_utf8(&line).ok().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status: u16 = status.ok_or_else(|| invalid("no status"))?;
        let (mut length, mut is_chunked, mut closes) = (None, false, false);
        for count in 0.. {
            read_line(reader, &mut line)?;
            if line.is_empty() {
                break;
            }
            if count == HEADERS_MAX {
                return Err(invalid("too many headers"));
            }
            let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
            if let Some(value) = text.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<u64>().map_err(|_| invalid("content length"))?);
            }
            is_chunked |= text.starts_with("transfer-encoding:");
            closes |= text.starts_with("connection:") && text.contains("close");
        }
        if (100..200).contains(&status) {
            continue;
        }
        let has_body = !(method == b"HEAD" || status == 204 || status == 304);
        match length {
            _ if !has_body => {}
            _ if is_chunked => read_chunks(reader, &mut line, body.as_deref_mut())?,
            Some(length) => read_exactly(reader, length, body.as_deref_mut())?,
            None => {
                closes = true;
                read_exactly(reader, u64::MAX, body.as_deref_mut())?;
            }
        }
        return Ok(Response { status, closes });
    }
}

fn read_chunks(
    reader: &mut BufReader<impl Read>,
    line: &mut Vec<u8>,
    mut body: Option<&mut Vec<u8>>,
) -> io::Result<()> {
    loop {
        read_line(reader, line)?;
        let size = std::str::from_utf8(line).ok().and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| invalid("chunk size"))?;
        read_exactly(reader, size, body.as_deref_mut())?;
        read_line(reader, line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Reads `length` bytes, or to the end of the connection if it is `u64::MAX`.
fn read_exactly(
    reader: &mut BufReader<impl Read>,
    length: u64,
    body: Option<&mut Vec<u8>>,
) -> io::Result<()> {
    let mut part = reader.take(length);
    let read = match body {
        Some(body) => part.read_to_end(body)? as u64,
        None => io::copy(&mut part, &mut io::sink())?,
    };
    if length != u64::MAX && read != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Reads a line without its end.
fn read_line(reader: &mut BufReader<impl Read>, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
