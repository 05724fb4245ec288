//! A client that sends exactly the frames a test asks for.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::super::frames::PREFACE;

/// How long a client waits before its test fails. Generous, because no test measures speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The status of HEADERS of a response.
    pub fn status(&self) -> u16 {
        assert_eq!(self.kind, HEADERS, "{self:?}");
        const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        // The first response sets the size of the table.
        let start = self.payload.iter().position(|byte| byte & 0xe0 != 0x20).expect("a field");
        match self.payload[start] {
            byte @ 0x88..=0x8e => INDEXED[usize::from(byte - 0x88)],
            // A literal for a name of the static table, in the code of Huffman.
            0x48 | 0x08 => huffman_digits(&self.payload[start + 2..]),
            other => panic!("unknown field {other:#x}"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("short").to_be_bytes();
        let header = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [header, self.payload.clone()].concat()
    }
}

/// Three digits: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |code, _| code << 1 | bits.next().expect("bits of a digit"));
        let digit = if five < 3 { five } else { (five << 1 | bits.next().expect("the sixth bit")) - 0x16 };
        number = number * 10 + digit;
    }
    number
}

/// A field without an index and without compression.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = Vec::new();
        match text.len() {
            length @ 0..127 => bytes.push(length as u8),
            length => {
                bytes.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 0x80);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    [vec![0], text(name), text(value)].concat()
}

/// The fields of a request.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    [field(":method", method), field(":scheme", "https"), field(":path", path), field(":authority", "a")]
        .concat()
}

pub struct Client {
    socket: TcpStream,
    read: VecDeque<u8>,
}

impl Client {
    /// Connects with these settings, and without waiting for those of the server.
    pub fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self { socket, read: VecDeque::new() };
        client.send_bytes(PREFACE);
        // Without a dynamic table, the first field of a response is its status.
        let settings: Vec<u8> = [(1, 0)]
            .iter()
            .chain(settings)
            .flat_map(|(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        client.send(&[Frame::new(SETTINGS, 0, 0, settings)]);
        client
    }

    /// Sends as much as the server takes; it may have ended the connection.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.send_bytes(&bytes);
    }

    /// Sends frames until the server has ended the connection. Returns its last frames.
    pub fn flood(&mut self, frames: &[Frame]) -> Vec<Frame> {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        for _ in 0..10_000 {
            if self.socket.write_all(&bytes).is_err() {
                break;
            }
        }
        self.rest()
    }

    /// A request without a body.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(&[Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, head("GET", path))]);
    }

    /// The head of a request with a body.
    pub fn begin_put(&mut self, stream: u32, path: &str) {
        self.send(&[Frame::new(HEADERS, END_HEADERS, stream, head("PUT", path))]);
    }

    /// The next frame, or `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let header = self.read_bytes(9)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes(header[5..9].try_into().expect("four bytes"));
        let payload = self.read_bytes(length)?;
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// The next frame of this stream.
    pub fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().expect("the connection continues");
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The frames until the end of the connection.
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The status and the bytes of the response.
    pub fn response(&mut self, stream: u32) -> (u16, Vec<u8>) {
        let mut frame = self.next_of(stream);
        let status = frame.status();
        let mut body = Vec::new();
        while !frame.ends_stream() {
            frame = self.next_of(stream);
            assert_eq!(frame.kind, DATA, "{frame:?}");
            body.extend_from_slice(&frame.payload);
        }
        (status, body)
    }

    fn read_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            let mut bytes = [0; 4 << 10];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.read.extend(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the server neither sends nor closes")
                }
                Err(_) => return None,
            }
        }
        Some(self.read.drain(..count).collect())
    }
}

/// The code of the GOAWAY among these frames, if there is one.
pub fn goaway_code(frames: &[Frame]) -> Option<u32> {
    frames.iter().rev().find(|frame| frame.kind == GOAWAY).map(Frame::code)
}
