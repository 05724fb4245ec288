//! Requests and answers over std's sockets, one thread for each connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Serves on a port of its own until the test ends.
pub fn serve(handle: impl Fn(Request) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || connection(stream, &*handle));
        }
    });
    port
}

fn connection(stream: TcpStream, handle: &dyn Fn(Request) -> Answer) {
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut stream = stream;
    while let Some((first, body)) = message(&mut reader) {
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Answer { status, body } = handle(Request { method, path, body });
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// The first line of a message and its body.
fn message(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let (mut first, mut line, mut length, mut chunked) = (String::new(), String::new(), 0, false);
    reader.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let lower = line.trim().to_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        chunked |= lower == "transfer-encoding: chunked";
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while chunked {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        body.extend_from_slice(&chunk[..size]);
        chunked = size > 0;
    }
    Some((first.trim_end().to_owned(), body))
}

/// Asks a server on this machine, on a connection of its own.
pub fn ask(port: u16, request: &Request) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_nodelay(true).ok()?;
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        request.method,
        request.path,
        request.body.len()
    );
    stream.write_all(&[head.as_bytes(), &request.body].concat()).ok()?;
    let (first, body) = message(&mut BufReader::new(stream))?;
    Some(Answer { status: first.split(' ').nth(1)?.parse().ok()?, body })
}
