//! What attackers do with connections: flood, hold, drip, sip. All of them come from one address, as one hostile client would.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::http::read_response;
use crate::stream::Target;

/// The attacker's address. Well-behaved clients use 127.0.0.1.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// The longest wait of an attacker for a response, so that it notices the end of the attack.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Time between two rounds over held connections.
const ROUND: Duration = Duration::from_millis(20);
/// The receive buffer of a held connection.
const RECEIVE_BYTES: usize = 4096;
/// How much lower the priority of attackers is, because real ones run on other machines and leave the processor to the gateway.
const NICENESS: i32 = 10;

/// The gateway as an attack sees it.
pub struct Scene {
    pub target: Target,
    /// A short run has smaller preparations.
    pub is_quick: bool,
    over: AtomicBool,
}

/// A connection that an attacker holds without waiting for anything.
pub struct Held {
    pub stream: TcpStream,
    /// The bytes of the request that were sent.
    pub sent: usize,
}

impl Scene {
    pub const fn new(target: Target, is_quick: bool) -> Self {
        Self { target, is_quick, over: AtomicBool::new(false) }
    }

    /// Whether the attack has to end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends the attack.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Lets the attack begin again.
    pub fn restart(&self) {
        self.over.store(false, Ordering::Relaxed);
    }

    /// Waits for a part of a second, or returns at the end of the attack.
    pub fn pause(&self, duration: Duration) {
        let mut left = duration;
        while !self.is_over() && !left.is_zero() {
            let part = left.min(ROUND);
            std::thread::sleep(part);
            left -= part;
        }
    }

    /// A connection from the attacker's address.
    pub fn connect(&self) -> io::Result<TcpStream> {
        self.connect_with(|_| Ok(()))
    }

    fn connect_with(&self, set: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        set(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::from((ATTACKER, 0))))?;
        socket.connect_timeout(&SockAddr::from(self.target.address), WAIT_MAX)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        Ok(stream)
    }

    /// Sends a request that prepares an attack. Anything but 2xx means that the attack does not apply to this gateway.
    pub fn set_up(&self, request: &[u8]) -> Result<()> {
        let status =
            exchange_once(&self.target, request, Duration::from_secs(60)).context("preparation failed")?;
        if status / 100 != 2 {
            bail!("refused with {status} already in preparation");
        }
        Ok(())
    }

    /// Runs `attacker` in several threads, with the number of each.
    pub fn threads(&self, count: usize, attacker: impl Fn(usize) + Sync) {
        std::thread::scope(|scope| {
            for number in 0..count {
                let attacker = &attacker;
                let run = move || attacker(number);
                let builder = std::thread::Builder::new().stack_size(256 * 1024);
                builder.spawn_scoped(scope, run).expect("the system has threads left");
            }
        });
    }

    /// Sends requests one after the other on each of several persistent connections, and reads the responses.
    pub fn flood(&self, connections: usize, requests: &[Vec<u8>]) {
        self.flood_with(connections, |number, round| requests[(number + round) % requests.len()].clone());
    }

    /// The same with requests that are made for each connection and round.
    pub fn flood_with(&self, connections: usize, make: impl Fn(usize, usize) -> Vec<u8> + Sync) {
        self.threads(connections, |number| {
            let mut reader = None;
            let mut round = 0;
            while !self.is_over() {
                reader = self.exchange(reader, &make(number, round)).unwrap_or_else(|_| {
                    self.pause(Duration::from_millis(1));
                    None
                });
                round += 1;
            }
        });
    }

    fn exchange(
        &self,
        reader: Option<BufReader<TcpStream>>,
        request: &[u8],
    ) -> io::Result<Option<BufReader<TcpStream>>> {
        let mut reader = match reader {
            Some(reader) => reader,
            None => BufReader::new(self.connect()?),
        };
        self.send(reader.get_mut(), request)?;
        let method = request.split(|byte| *byte == b' ').next().unwrap_or_default();
        loop {
            // The head is awaited in steps of `WAIT_MAX`, so that the thread ends with the attack.
            match reader.get_ref().peek(&mut [0]) {
                Err(error) if is_timeout(&error) && !self.is_over() => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        let response = read_response(&mut reader, method, None)?;
        Ok((!response.closes).then_some(reader))
    }

    /// Sends all bytes, until the attack ends.
    pub fn send(&self, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if is_timeout(&error) && !self.is_over() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Holds `count` connections that send `request` and read nothing. Connections that the gateway closes are opened again.
    pub fn hold(&self, count: usize, request: &[u8]) {
        self.hold_with(count, request, |_, _| Ok(()));
    }

    /// Holds connections that send `head`, and then `filler` again and again, one piece in each round of 20 ms.
    pub fn drip(&self, count: usize, head: &[u8], filler: &[u8]) {
        self.hold_with(count, head, |held, _| held.stream.write(filler).map(drop));
    }

    /// Holds connections that send `request` and read `bytes` of the response in each round of 20 ms.
    pub fn sip(&self, count: usize, request: &[u8], bytes: usize) {
        let mut buffer = vec![0; bytes];
        self.hold_with(count, request, |held, _| match held.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other.map(drop),
        });
    }

    /// Holds connections. `act` is called in each round for each connection that has sent its request; an error opens the
    /// connection again.
    pub fn hold_with(
        &self,
        count: usize,
        request: &[u8],
        mut act: impl FnMut(&mut Held, usize) -> io::Result<()>,
    ) {
        let mut all: Vec<Option<Held>> = (0..count).map(|_| None).collect();
        let mut round = 0;
        while !self.is_over() {
            for slot in &mut all {
                if self.is_over() {
                    return;
                }
                if slot.is_none() {
                    // The system would otherwise read megabytes for a client that reads nothing.
                    let small = |socket: &Socket| socket.set_recv_buffer_size(RECEIVE_BYTES);
                    let Ok(stream) = self.connect_with(small) else { break };
                    if stream.set_nonblocking(true).is_ok() {
                        *slot = Some(Held { stream, sent: 0 });
                    }
                }
                let Some(held) = slot else { continue };
                let result = if held.sent < request.len() {
                    held.stream.write(&request[held.sent..]).map(|sent| held.sent += sent)
                } else {
                    act(held, round)
                };
                let is_closed = matches!(held.stream.peek(&mut [0]), Ok(0));
                if is_closed || result.is_err_and(|error| !is_timeout(&error)) {
                    *slot = None;
                }
            }
            round += 1;
            self.pause(ROUND);
        }
    }
}

/// Gives the calling thread, and those that it starts, the priority of attackers.
pub fn lower_priority() {
    // If this fails, the attack is just more intense.
    let _ = rustix::process::getpriority_process(None)
        .and_then(|own| rustix::process::setpriority_process(None, own + NICENESS));
}

/// Sends a request on a new connection from a well-behaved address, and returns the status.
pub fn exchange_once(target: &Target, request: &[u8], timeout: Duration) -> io::Result<u16> {
    let mut stream = target.connect(timeout)?;
    stream.write_all(request)?;
    let method = request.split(|byte| *byte == b' ').next().unwrap_or_default();
    read_response(&mut BufReader::new(stream), method, None).map(|response| response.status)
}

/// A blocking socket reports a timeout, and a nonblocking one that it would block, by the same error.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
