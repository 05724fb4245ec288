//! Request targets that hyper rejects or truncates although the official program accepts them.
//!
//! Go takes every byte of a target but spaces and control characters, so `/metrics/job/C#tests` and `/instance/<host>` work. hyper
//! rejects `<`, and drops what follows a `#`, which would put the push into another group. [`Targets`] carries the bytes between a
//! transport and hyper and percent-encodes such bytes in request lines. The path is decoded later in any case.
//!
//! To find the request lines, it delivers one head at a time, and learns from hyper's own parser what follows the head. hyper's request
//! and the framing must agree on where a head ends; otherwise [`Framing::head_parsed`] reports it, and the request is rejected.
//!
//! A usual push arrives in one read. If its head says how long the body is, head and body are delivered together, which saves a buffer and
//! a read; hyper's request must have a body of that length then.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Body;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// A usual read; fits the head and body of a typical push.
const READ_BYTES: usize = 4 << 10;
/// A read of a long body.
const BULK_BYTES: usize = 32 << 10;

/// The bytes between a transport and hyper.
pub(super) struct Targets<T> {
    inner: T,
    framing: Rc<Framing>,
    /// What was read and not delivered: `held[start..end]`.
    held: Vec<u8>,
    start: usize,
    end: usize,
}

/// Where in the requests of a connection the next byte is.
#[derive(Default)]
pub(super) struct Framing(Cell<Place>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Place {
    /// Before the first byte of a request line.
    #[default]
    Start,
    Method,
    Target,
    /// In the rest of the request line, or in a header. `is_blank`: nothing of the line has been seen, except CR.
    Line {
        is_blank: bool,
    },
    /// A whole head was delivered, which hyper has not parsed yet.
    HeadEnd,
    /// The same, and the beginning of its body was delivered with it.
    BodyBegun {
        length: u64,
        delivered: u64,
    },
    /// So many bytes of the body are missing.
    Body(u64),
    ChunkSize {
        size: u64,
        in_extension: bool,
    },
    Chunk(u64),
    /// The line feed after a chunk.
    ChunkEnd,
    Trailer {
        is_blank: bool,
    },
    /// hyper and this module disagree. Bytes are delivered as they are, and every further request is rejected.
    Lost,
}

impl Framing {
    /// hyper has parsed a head and found this body. Returns whether a head was just delivered.
    pub(super) fn head_parsed(&self, body: &impl Body) -> bool {
        let (place, is_expected) = match (self.0.get(), body.size_hint().exact()) {
            (Place::HeadEnd, Some(0)) => (Place::Start, true),
            (Place::HeadEnd, Some(bytes)) => (Place::Body(bytes), true),
            (Place::HeadEnd, None) => (Place::ChunkSize { size: 0, in_extension: false }, true),
            (Place::BodyBegun { length, delivered }, Some(bytes)) if bytes == length => {
                (body_place(length - delivered), true)
            }
            _ => (Place::Lost, false),
        };
        self.0.set(place);
        is_expected
    }

    /// Whether a long body is arriving.
    fn is_in_long_body(&self) -> bool {
        matches!(self.0.get(), Place::Body(bytes) | Place::Chunk(bytes) if bytes > READ_BYTES as u64)
            || self.0.get() == Place::Lost
    }

    /// Delivers bytes up to the end of a head, at least one. Returns how many of them were taken.
    fn deliver(&self, bytes: &[u8], out: &mut impl Output) -> usize {
        if matches!(self.0.get(), Place::HeadEnd | Place::BodyBegun { .. }) && !bytes.is_empty() {
            // hyper wants more, so for it the head has not ended.
            self.0.set(Place::Lost);
        }
        let is_start = self.0.get() == Place::Start;
        let mut taken = 0;
        while taken < bytes.len() && out.room() > 0 && self.0.get() != Place::HeadEnd {
            let rest = &bytes[taken..bytes.len().min(taken + out.room())];
            let (count, replacement, place) = step(self.0.get(), rest);
            match replacement.map(escaped) {
                Some(code) if out.room() < code.len() && taken > 0 => break,
                // hyper always has more room than that.
                Some(code) if out.room() < code.len() => {
                    self.0.set(Place::Lost);
                    continue;
                }
                Some(code) => out.put(&code),
                None => out.put(&rest[..count]),
            }
            taken += count;
            self.0.set(place);
        }
        if is_start && self.0.get() == Place::HeadEnd {
            let (head, rest) = bytes.split_at(taken);
            let delivered = rest.len() as u64;
            if let Some(length) = body_length(head).filter(|&length| 0 < delivered && delivered <= length)
                && rest.len() <= out.room()
            {
                out.put(rest);
                self.0.set(Place::BodyBegun { length, delivered });
                return bytes.len();
            }
        }
        taken
    }
}

/// Where bytes are delivered to.
trait Output {
    fn room(&self) -> usize;
    fn put(&mut self, bytes: &[u8]);
}

impl Output for ReadBufCursor<'_> {
    fn room(&self) -> usize {
        self.remaining()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

/// Looks at the next bytes, of which there is at least one. Returns how many of them to deliver, the byte to escape instead if it is one
/// that hyper does not accept, and the place after them.
fn step(place: Place, bytes: &[u8]) -> (usize, Option<u8>, Place) {
    let first = bytes[0];
    match place {
        Place::Start => (1, None, if matches!(first, b'\r' | b'\n') { Place::Start } else { Place::Method }),
        Place::Method => match memchr::memchr2(b' ', b'\n', bytes) {
            Some(at) if bytes[at] == b' ' => (at + 1, None, Place::Target),
            Some(at) => (at + 1, None, Place::Line { is_blank: true }),
            None => (bytes.len(), None, place),
        },
        Place::Target => {
            let ends = bytes.iter().position(|byte| b" \n#\"<>`".contains(byte)).unwrap_or(bytes.len());
            // hyper wants UTF-8. A character that arrives in two pieces is escaped as well, which means the same.
            match str::from_utf8(&bytes[..ends]).map_or_else(|error| error.valid_up_to(), str::len) {
                0 => match first {
                    b'\n' => (1, None, Place::Line { is_blank: true }),
                    b' ' => (1, None, Place::Line { is_blank: false }),
                    byte => (1, Some(byte), place),
                },
                count => (count, None, place),
            }
        }
        Place::Line { is_blank } => {
            let (count, has_ended, is_blank) = line(bytes, is_blank);
            (count, None, if has_ended { Place::HeadEnd } else { Place::Line { is_blank } })
        }
        Place::Body(left) => {
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            (count, None, body_place(left - count as u64))
        }
        Place::ChunkSize { size, in_extension } => {
            let place = match (first, (first as char).to_digit(16)) {
                (b'\n', _) if size == 0 => Place::Trailer { is_blank: true },
                (b'\n', _) => Place::Chunk(size),
                (_, Some(digit)) if !in_extension => match size.checked_mul(16) {
                    Some(size) => Place::ChunkSize { size: size + u64::from(digit), in_extension },
                    None => Place::Lost,
                },
                _ => Place::ChunkSize { size, in_extension: true },
            };
            (1, None, place)
        }
        Place::Chunk(left) => {
            let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - count as u64;
            (count, None, if left == 0 { Place::ChunkEnd } else { Place::Chunk(left) })
        }
        Place::ChunkEnd => {
            let next = Place::ChunkSize { size: 0, in_extension: false };
            (1, None, if first == b'\n' { next } else { place })
        }
        Place::Trailer { is_blank } => {
            let (count, has_ended, is_blank) = line(bytes, is_blank);
            (count, None, if has_ended { Place::Start } else { Place::Trailer { is_blank } })
        }
        Place::HeadEnd | Place::BodyBegun { .. } | Place::Lost => (bytes.len(), None, place),
    }
}

/// The place in a body of which so many bytes are missing.
fn body_place(left: u64) -> Place {
    if left == 0 { Place::Start } else { Place::Body(left) }
}

/// The length of the body of a PUT, POST or PATCH, if its head states it once and in the plain form. `None` means only that it is not
/// known here.
fn body_length(head: &[u8]) -> Option<u64> {
    let mut lines = head.split(|&byte| byte == b'\n');
    if !lines.next()?.starts_with(b"P") {
        return None;
    }
    let mut length = None;
    for line in lines {
        // Most lines are ruled out by their first byte.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                let Some(value) = value_of(line, b"content-length:") else { continue };
                if length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                length = Some(str::from_utf8(value).ok()?.parse().ok()?);
            }
            Some(b't') if value_of(line, b"transfer-encoding").is_some() => return None,
            // A folded line.
            Some(b' ' | b'\t') => return None,
            _ => {}
        }
    }
    length
}

/// What follows a prefix of a header line, which has any case.
fn value_of<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| value.trim_ascii())
}

/// Looks at one line at most. Returns how many bytes belong to it, whether it is the blank one that ends the lines, and whether what
/// follows begins blank.
fn line(bytes: &[u8], is_blank: bool) -> (usize, bool, bool) {
    let end = memchr::memchr(b'\n', bytes);
    let text = &bytes[..end.unwrap_or(bytes.len())];
    let is_blank = is_blank && text.iter().all(|&byte| byte == b'\r');
    match end {
        Some(at) => (at + 1, is_blank, true),
        None => (bytes.len(), false, is_blank),
    }
}

/// The percent-encoding of a byte.
fn escaped(byte: u8) -> [u8; 3] {
    let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
    [b'%', digit(byte >> 4), digit(byte)]
}

impl<T> Targets<T> {
    pub(super) fn new(inner: T, framing: Rc<Framing>) -> Self {
        Self { inner, framing, held: Vec::new(), start: 0, end: 0 }
    }

    /// The transport. What was read from it and not delivered is lost.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Delivers held bytes. Returns whether there were any.
    fn deliver_held(&mut self, cursor: &mut ReadBufCursor<'_>) -> bool {
        if self.start == self.end {
            return false;
        }
        self.start += self.framing.deliver(&self.held[self.start..self.end], cursor);
        if self.start == self.end && !self.framing.is_in_long_body() {
            self.held = Vec::new();
            (self.start, self.end) = (0, 0);
        }
        true
    }
}

impl<T: Read + Unpin> Read for Targets<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.deliver_held(&mut cursor) {
            return Poll::Ready(Ok(()));
        }
        if this.framing.is_in_long_body() {
            this.held.resize(BULK_BYTES, 0);
            let room = cursor.remaining().min(BULK_BYTES);
            let mut buffer = ReadBuf::new(&mut this.held[..room]);
            let result = Pin::new(&mut this.inner).poll_read(context, buffer.unfilled());
            (this.start, this.end) = (0, buffer.filled().len());
            if this.end == 0 {
                // A body that does not arrive must not keep a buffer: nothing counts it.
                this.held = Vec::new();
            }
            ready!(result)?;
            this.deliver_held(&mut cursor);
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [MaybeUninit::<u8>::uninit(); READ_BYTES];
        let room = cursor.remaining().min(READ_BYTES);
        let mut buffer = ReadBuf::uninit(&mut bytes[..room]);
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer.unfilled()))?;
        let taken = this.framing.deliver(buffer.filled(), &mut cursor);
        this.held = buffer.filled()[taken..].to_vec();
        (this.start, this.end) = (0, this.held.len());
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Targets<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body::{Frame, SizeHint};
    use proptest::prelude::*;

    use super::*;

    /// What hyper says about the body of a request.
    #[derive(Clone, Copy)]
    enum TestBody {
        None,
        Length(u64),
        Chunked,
    }

    impl Body for TestBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            matches!(self, Self::None)
        }

        fn size_hint(&self) -> SizeHint {
            match self {
                Self::None => SizeHint::with_exact(0),
                Self::Length(bytes) => SizeHint::with_exact(*bytes),
                Self::Chunked => SizeHint::default(),
            }
        }
    }

    /// Takes as many bytes at a time as there is room.
    struct Small(Vec<u8>, usize);

    impl Output for Small {
        fn room(&self) -> usize {
            self.1 - self.0.len()
        }

        fn put(&mut self, bytes: &[u8]) {
            assert!(bytes.len() <= self.room());
            self.0.extend_from_slice(bytes);
        }
    }

    /// Delivers pieces of some bytes, as hyper would ask for them, and returns the heads and everything else.
    fn delivered(pieces: &[&[u8]], room: usize, bodies: &[TestBody]) -> Vec<u8> {
        let framing = Framing::default();
        let (mut all, mut bodies) = (Vec::new(), bodies.iter());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let mut out = Small(Vec::new(), room);
                let taken = framing.deliver(rest, &mut out);
                assert!(taken > 0);
                rest = &rest[taken..];
                all.extend(out.0);
                if matches!(framing.0.get(), Place::HeadEnd | Place::BodyBegun { .. }) {
                    assert!(framing.head_parsed(bodies.next().expect("another request")));
                }
            }
        }
        assert_eq!((framing.0.get(), bodies.len()), (Place::Start, 0));
        all
    }

    const REQUESTS: &str = "PUT /a#b<c>`d\"e\u{e9}?x=#\" HTTP/1.1\r\nhost: #<>\r\ncontent-length: 9\r\n\r\nGET /#\n\n#\
        \r\nGET /x HTTP/1.0\n\nPOST /<> HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
        3;x=\"#\"\r\n#\n#\r\nA\r\n0123456789\r\n0\r\nt: #\r\n\r\nGET /metrics/job/C#tests HTTP/1.1\r\n\r\n";

    const DELIVERED: &str = "PUT /a%23b%3Cc%3E%60d%22e\u{e9}?x=%23%22 HTTP/1.1\r\nhost: #<>\r\ncontent-length: 9\r\n\r\nGET /#\n\n#\
        \r\nGET /x HTTP/1.0\n\nPOST /%3C%3E HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
        3;x=\"#\"\r\n#\n#\r\nA\r\n0123456789\r\n0\r\nt: #\r\n\r\nGET /metrics/job/C%23tests HTTP/1.1\r\n\r\n";

    const BODIES: [TestBody; 4] = [TestBody::Length(9), TestBody::None, TestBody::Chunked, TestBody::None];

    proptest! {
        #[test]
        fn only_targets_are_changed_however_bytes_arrive(cuts in prop::collection::vec(0..REQUESTS.len(), 0..8), room in 3..600usize) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts.into_iter().chain([REQUESTS.len()]) {
                pieces.push(&REQUESTS.as_bytes()[start..cut]);
                start = cut;
            }
            let text = String::from_utf8(delivered(&pieces, room, &BODIES)).expect("UTF-8");
            prop_assert_eq!(text.replace("%C3%A9", "\u{e9}"), DELIVERED);
        }

        #[test]
        fn any_bytes_are_delivered_or_held(bytes: Vec<u8>, room in 1..40usize) {
            let framing = Framing::default();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let taken = framing.deliver(rest, &mut Small(Vec::new(), room));
                prop_assert!(taken > 0);
                rest = &rest[taken..];
            }
        }
    }

    #[test]
    fn bytes_of_a_target_that_are_not_utf8_are_escaped() {
        let sent = b"GET /\xff\xc3/\xc3\xa9 HTTP/1.1\r\n\r\n";
        let received = delivered(&[sent], 100, &[TestBody::None]);
        assert_eq!(received, b"GET /%FF%C3/\xc3\xa9 HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_body_is_delivered_with_its_head_if_its_length_is_known() {
        for (head, sent, is_together) in [
            ("PUT / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 9 \r\n\r\n", "m 1\n", true),
            ("POST / HTTP/1.1\nContent-Length:4\n\n", "m 1\n", true),
            ("PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: +4\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\nX: a\r\n Content-Length: 4\r\nContent-Length: 4\r\n\r\n", "m 1\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n", "m 1\n", false),
            ("PUT / HTTP/1.1\r\n\r\n", "m 1\n", false),
        ] {
            let bytes = [head, sent].concat();
            let taken = Framing::default().deliver(bytes.as_bytes(), &mut Small(Vec::new(), 1000));
            assert_eq!(taken, if is_together { bytes.len() } else { head.len() }, "{head}");
            let no_room = &mut Small(Vec::new(), head.len() + 1);
            assert_eq!(Framing::default().deliver(bytes.as_bytes(), no_room), head.len(), "{head}");
        }
    }

    #[test]
    fn a_body_of_another_length_than_its_head_says_is_not_expected() {
        let sent = b"PUT / HTTP/1.1\r\nContent-Length: 9\r\n\r\nm 1\n";
        let parsed = |body| {
            let framing = Framing::default();
            framing.deliver(sent, &mut Small(Vec::new(), 1000));
            (framing.head_parsed(&body), framing.0.get())
        };
        assert_eq!(parsed(TestBody::Length(9)), (true, Place::Body(5)));
        for other in [TestBody::Length(8), TestBody::None, TestBody::Chunked] {
            assert_eq!(parsed(other), (false, Place::Lost));
        }
    }

    /// A client that sends nothing.
    struct Silent;

    impl Read for Silent {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_long_body_that_does_not_arrive_keeps_no_buffer() {
        let framing = Rc::new(Framing::default());
        framing.0.set(Place::Body(1 << 20));
        let mut targets = Targets::new(Silent, framing);
        let mut bytes = vec![0; BULK_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut targets).poll_read(&mut context, buffer.unfilled()).is_pending());
        assert_eq!(targets.held.capacity(), 0);
    }

    #[test]
    fn a_request_that_hyper_finds_elsewhere_is_not_expected() {
        let framing = Framing::default();
        assert!(!framing.head_parsed(&TestBody::None), "no head was delivered");
        let framing = Framing::default();
        let mut out = Small(Vec::new(), 100);
        assert_eq!(framing.deliver(b"GET / HTTP/1.1\r\n\r\nGET /#", &mut out), 18);
        // hyper reads on instead of parsing the head.
        assert_eq!(framing.deliver(b"GET /#", &mut out), 6);
        assert!(!framing.head_parsed(&TestBody::None));
    }
}
