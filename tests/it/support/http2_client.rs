//! An HTTP/2 client over TLS that sends exactly the fields a test asks for, in one frame each.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

use super::tls_client::connect;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a request led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A response: its status and body.
    Response(u16, Vec<u8>),
    /// The server reset the stream, with this code.
    Reset(u32),
    /// The server ended the connection and has processed no stream after `last_stream`.
    GoAway { last_stream: u32, code: u32 },
    /// The connection ended.
    Closed,
}

impl Reply {
    /// The status, 0 without a response.
    pub fn status(&self) -> u16 {
        if let Self::Response(status, _) = self { *status } else { 0 }
    }
}

/// One connection.
pub struct Http2Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    next_stream: u32,
    /// The identifiers and values of the server's settings.
    pub settings: Vec<(u16, u32)>,
}

impl Http2Client {
    /// Connects; fails if the server does not choose HTTP/2.
    pub fn open(port: u16) -> io::Result<Self> {
        let mut stream = connect(port, None, &[b"h2"])?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        let mut client = Self { stream, next_stream: 1, settings: Vec::new() };
        // Without a dynamic table, the first field of a response is its status.
        client.send(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])?;
        Ok(client)
    }

    /// Sends a request with these fields, after the pseudo fields of a usual one.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Reply {
        let pseudo = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "a")];
        self.exchange(&[&pseudo[..], fields].concat(), Some(body))
    }

    /// Sends exactly these fields, and a body if there is one; otherwise the request does not end. Returns what follows.
    pub fn exchange(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> Reply {
        let head: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value.as_bytes())).collect();
        self.exchange_encoded(&head, body)
    }

    /// Sends a PUT whose path may be any bytes.
    pub fn put_to(&mut self, path: &[u8], body: &[u8]) -> Reply {
        let head = [
            field(":method", b"PUT"),
            field(":scheme", b"https"),
            field(":path", path),
            field(":authority", b"a"),
        ];
        self.exchange_encoded(&head.concat(), Some(body))
    }

    fn exchange_encoded(&mut self, head: &[u8], body: Option<&[u8]>) -> Reply {
        let stream = self.next_stream;
        self.next_stream += 2;
        // The server may have ended the connection; the reply says so.
        let _ = self.send(HEADERS, END_HEADERS, stream, head);
        if let Some(body) = body {
            let _ = self.send(DATA, END_STREAM, stream, body);
        }
        self.reply(stream).unwrap_or(Reply::Closed)
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
        let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&header, payload].concat())?;
        self.stream.flush()
    }

    fn reply(&mut self, wanted: u32) -> io::Result<Reply> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header)?;
            let [high, middle, low, kind, flags, stream @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.stream.read_exact(&mut payload)?;
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
            match kind {
                SETTINGS => self.settings.extend(payload.chunks_exact(6).map(|entry| {
                    let value = entry[2..].try_into().expect("four bytes");
                    (u16::from_be_bytes([entry[0], entry[1]]), u32::from_be_bytes(value))
                })),
                GOAWAY => return Ok(Reply::GoAway { last_stream: number(0), code: number(4) }),
                _ if u32::from_be_bytes(stream) != wanted => {}
                RST_STREAM => return Ok(Reply::Reset(number(0))),
                HEADERS => status = status_of(&payload),
                DATA => body.extend_from_slice(&payload),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA)
                && flags & END_STREAM != 0
                && u32::from_be_bytes(stream) == wanted
            {
                return Ok(Reply::Response(status, body));
            }
        }
    }
}

/// A field without an index and without compression.
fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let text = |text: &[u8]| {
        assert!(text.len() < 127, "a short text");
        [&[text.len() as u8], text].concat()
    };
    [vec![0], text(name.as_bytes()), text(value)].concat()
}

/// The status in the fields of a response: the first field after a change of the table's size.
fn status_of(fields: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let start = fields.iter().position(|byte| byte & 0xe0 != 0x20).expect("a field");
    match fields[start] {
        byte @ 0x88..=0x8e => INDEXED[usize::from(byte - 0x88)],
        // A literal in the code of Huffman, where 0 to 2 have five bits and the others six.
        0x48 | 0x08 => {
            let bits =
                fields[start + 2..].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
            let mut bits = bits.map(u16::from);
            (0..3).fold(0, |number, _| {
                let five = (0..5).fold(0, |code, _| code << 1 | bits.next().expect("bits of a digit"));
                let digit = if five < 3 { five } else { (five << 1 | bits.next().expect("a bit")) - 0x16 };
                number * 10 + digit
            })
        }
        other => panic!("unknown field {other:#x}"),
    }
}
