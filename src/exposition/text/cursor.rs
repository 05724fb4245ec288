//! Reads the tokens of a body from left to right.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr_iter};

use super::error::ParseError;
use crate::exposition::names::{self, Alphabet};
use crate::exposition::quote::quote;

/// A position in a body. Tokens borrow from the body unless an escape sequence had to be resolved.
pub(super) struct Cursor<'a> {
    body: &'a [u8],
    /// The body, if all of it is UTF-8. Its tokens then need no check of their own.
    text: Option<&'a str>,
    line_start: usize,
    /// The next byte to read.
    pub(super) pos: usize,
    /// The memory of tokens that do not borrow from the body.
    pub(super) copied_bytes: usize,
}

/// A token that has not been checked for UTF-8.
pub(super) enum Token {
    /// A range of the body.
    Plain(Range<usize>),
    /// Bytes in which escape sequences are resolved.
    Resolved(Vec<u8>),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, text: str::from_utf8(body).ok(), line_start: 0, pos: 0, copied_bytes: 0 }
    }

    /// Records where the current line begins. Lines are counted only when an error needs the number.
    #[inline]
    pub(super) fn begin_line(&mut self) {
        self.line_start = self.pos;
    }

    #[inline]
    pub(super) fn at_end(&self) -> bool {
        self.pos >= self.body.len()
    }

    /// The next byte, or NUL at the end. No rule expects NUL, so [`Self::unexpected`] reports the end.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.body.get(self.pos).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.body[self.pos.min(self.body.len())..]
    }

    #[inline]
    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\t') {
            self.pos += 1;
        }
    }

    /// Consumes the byte if it is the next one.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte && !self.at_end();
        self.pos += usize::from(found);
        found
    }

    /// An error in the current line.
    #[cold]
    pub(super) fn error(&self, reason: String) -> ParseError {
        let line = memchr_iter(b'\n', &self.body[..self.line_start]).count() + 1;
        ParseError::new(line as u32, reason)
    }

    /// An error about the next byte, or about the end of the body if there is none.
    #[cold]
    pub(super) fn unexpected(&self, reason: String) -> ParseError {
        if self.at_end() { self.cut_off() } else { self.error(reason) }
    }

    /// The error of a body that ends within a line.
    #[cold]
    pub(super) fn cut_off(&self) -> ParseError {
        self.error("unexpected end of input stream".to_owned())
    }

    /// Consumes the bytes up to the next blank or LF. At the end of the body this is an error.
    pub(super) fn word(&mut self) -> Result<&'a [u8], ParseError> {
        let rest = self.rest();
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
            .ok_or_else(|| self.cut_off())?;
        self.pos += length;
        Ok(&rest[..length])
    }

    /// Consumes a line up to and including its LF, and returns it without the LF. A missing LF is an error.
    pub(super) fn rest_of_line(&mut self) -> Result<&'a [u8], ParseError> {
        let rest = self.rest();
        let length = memchr(b'\n', rest).ok_or_else(|| self.cut_off())?;
        self.pos += length + 1;
        Ok(&rest[..length])
    }

    /// Consumes a name without quotes, the usual kind. Returns `None` and consumes nothing if there is none.
    #[inline]
    pub(super) fn plain_name(&mut self, alphabet: Alphabet) -> Option<&'a str> {
        let end = self.pos + names::prefix_len(self.rest(), alphabet);
        if end == self.pos || self.body.get(end) == Some(&b'"') {
            return None;
        }
        let name = self.slice(self.pos..end)?;
        self.pos = end;
        Some(name)
    }

    /// Consumes a name: characters of the alphabet, any characters in quotes, or the former followed by the latter. The
    /// name is empty if there is none.
    pub(super) fn name(&mut self, alphabet: Alphabet, what: &str) -> Result<Token, ParseError> {
        let start = self.pos;
        self.pos += names::prefix_len(self.rest(), alphabet);
        let plain = start..self.pos;
        if self.peek() != b'"' {
            return Ok(Token::Plain(plain));
        }
        self.pos += 1;
        if plain.is_empty() {
            return self.quoted(what);
        }
        // The official parser accepts a name of which only the second half is in quotes.
        self.quoted_after(self.body[plain].to_vec(), what)
    }

    /// Consumes a quoted text after its opening quote. `what` names it in an error.
    #[inline]
    pub(super) fn quoted(&mut self, what: &str) -> Result<Token, ParseError> {
        let start = self.pos;
        let stop = start + quoted_len(self.rest());
        if self.body.get(stop) == Some(&b'"') {
            self.pos = stop + 1;
            return Ok(Token::Plain(start..stop));
        }
        self.quoted_after(Vec::with_capacity(stop - start + RESOLVED_BYTES_MORE), what)
    }

    /// Appends a quoted text to `out`, up to its closing quote and with its escape sequences resolved.
    fn quoted_after(&mut self, mut out: Vec<u8>, what: &str) -> Result<Token, ParseError> {
        loop {
            let run = quoted_len(self.rest());
            out.extend_from_slice(&self.rest()[..run]);
            self.pos += run;
            match self.peek() {
                b'"' => {
                    self.pos += 1;
                    self.copied_bytes += out.capacity() + ALLOCATION_BYTES;
                    return Ok(Token::Resolved(out));
                }
                b'\\' => {
                    self.pos += 1;
                    out.push(resolve_escape(self.peek()).ok_or_else(|| self.bad_escape(self.peek()))?);
                    self.pos += 1;
                }
                _ => {
                    return Err(
                        self.unexpected(format!("{what} {} contains unescaped new-line", quote(&out)))
                    );
                }
            }
        }
    }

    #[cold]
    fn bad_escape(&self, byte: u8) -> ParseError {
        self.unexpected(format!("invalid escape sequence '\\{}'", char::from(byte)))
    }

    /// Consumes a HELP text up to the end of the line. Bytes that are not UTF-8 become U+FFFD.
    pub(super) fn help(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let end = memchr(b'\n', self.rest()).map_or(self.body.len(), |length| self.pos + length);
        let raw = self.pos..end;
        if memchr(b'\\', &self.body[raw.clone()]).is_some() {
            return self.help_with_escapes(end);
        }
        self.pos = end;
        if !self.eat(b'\n') {
            return Err(self.cut_off());
        }
        Ok(match self.text.and_then(|text| text.get(raw.clone())) {
            Some(help) => Cow::Borrowed(help),
            None => {
                let help = String::from_utf8_lossy(&self.body[raw]);
                self.copied_bytes += help.len() + ALLOCATION_BYTES;
                help
            }
        })
    }

    fn help_with_escapes(&mut self, end: usize) -> Result<Cow<'a, str>, ParseError> {
        let mut out = Vec::with_capacity(end - self.pos);
        self.copied_bytes += end - self.pos + ALLOCATION_BYTES;
        while let Some(run) = memchr(b'\\', &self.body[self.pos.min(end)..end]) {
            out.extend_from_slice(&self.body[self.pos..self.pos + run]);
            self.pos += run + 1;
            out.push(resolve_escape(self.peek()).ok_or_else(|| self.bad_escape(self.peek()))?);
            self.pos += 1;
        }
        out.extend_from_slice(&self.body[self.pos..end]);
        self.pos = end;
        if !self.eat(b'\n') {
            return Err(self.cut_off());
        }
        Ok(Cow::Owned(String::from_utf8_lossy(&out).into_owned()))
    }

    /// The bytes of a token.
    pub(super) fn bytes<'t>(&'t self, token: &'t Token) -> &'t [u8] {
        match token {
            Token::Plain(range) => &self.body[range.clone()],
            Token::Resolved(bytes) => bytes,
        }
    }

    /// A range of the body as text, if it is UTF-8. Tokens begin and end next to ASCII characters, so never inside a
    /// character.
    #[inline]
    fn slice(&self, range: Range<usize>) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(range),
            None => str::from_utf8(&self.body[range]).ok(),
        }
    }

    /// The token as text, or its bytes if it is not UTF-8.
    #[inline]
    pub(super) fn text(&self, token: Token) -> Result<Cow<'a, str>, Cow<'a, [u8]>> {
        match token {
            Token::Plain(range) => match self.slice(range.clone()) {
                Some(text) => Ok(Cow::Borrowed(text)),
                None => Err(Cow::Borrowed(&self.body[range])),
            },
            Token::Resolved(bytes) => {
                String::from_utf8(bytes).map(Cow::Owned).map_err(|error| Cow::Owned(error.into_bytes()))
            }
        }
    }
}

/// The byte that an escape sequence represents.
fn resolve_escape(byte: u8) -> Option<u8> {
    match byte {
        b'\\' | b'"' => Some(byte),
        b'n' => Some(b'\n'),
        _ => None,
    }
}

/// What an allocation costs beyond its bytes.
const ALLOCATION_BYTES: usize = 16;
/// Extra capacity for the bytes after the first escape sequence; enough in the usual case.
const RESOLVED_BYTES_MORE: usize = 32;

/// Most values are short: their end is found before a call to the vectorised search would have started.
const INLINE_WORDS: usize = 4;

/// The number of bytes before the next quote, backslash or LF, or before the end.
#[inline]
fn quoted_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // Marks the first zero byte. Later bytes may be marked in error.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut done = 0;
    for chunk in text.chunks_exact(8).take(INLINE_WORDS) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let found = zeros(word ^ (ONES * b'"' as u64))
            | zeros(word ^ (ONES * b'\\' as u64))
            | zeros(word ^ (ONES * b'\n' as u64));
        if found != 0 {
            return done + found.trailing_zeros() as usize / 8;
        }
        done += 8;
    }
    done + memchr::memchr3(b'"', b'\\', b'\n', &text[done..]).unwrap_or(text.len() - done)
}
