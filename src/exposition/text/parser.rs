//! The grammar of a line, which is a comment or a sample.

use std::borrow::Cow;

use super::builder::{FamiliesBuilder, Role};
use super::cursor::{Cursor, Token};
use super::error::ParseError;
use crate::exposition::lengths::{LengthLimits, TooLong};
use crate::exposition::memory::Memory;
use crate::exposition::model::{Families, Label, MetricType};
use crate::exposition::names::{Alphabet, LABEL, METRIC, METRIC_NAME_LABEL, NameRules};
use crate::exposition::number;
use crate::exposition::quote::{quote, quote_byte};

/// Parses a body line by line and adds its samples to a [`FamiliesBuilder`].
pub(super) struct Parser<'a, 'm> {
    cursor: Cursor<'a>,
    families: FamiliesBuilder<'a>,
    rules: NameRules,
    lengths: LengthLimits,
    memory: &'m mut dyn Memory,
    /// What is reserved for the families.
    reserved_bytes: usize,
    /// The position from which on their size is compared again.
    next_measure: usize,
}

/// How much of a body is parsed between two looks at the size of its families.
const MEASURE_BYTES: usize = 16 << 10;

/// A name. Without quotes it consists of characters of the alphabet.
enum Name<'a> {
    Plain(&'a str),
    Quoted(Token),
}

enum Keyword {
    Help,
    Type,
}

impl<'a, 'm> Parser<'a, 'm> {
    pub(super) fn new(
        body: &'a [u8],
        rules: NameRules,
        lengths: LengthLimits,
        memory: &'m mut dyn Memory,
    ) -> Self {
        Self {
            cursor: Cursor::new(body),
            families: FamiliesBuilder::for_body(body.len()),
            rules,
            lengths,
            memory,
            reserved_bytes: 0,
            next_measure: MEASURE_BYTES,
        }
    }

    pub(super) fn run(&mut self) -> Result<Families<'a>, ParseError> {
        loop {
            self.cursor.begin_line();
            self.measure_now_and_then()?;
            self.cursor.skip_blanks();
            match self.cursor.peek() {
                b'#' => {
                    self.cursor.pos += 1;
                    self.comment()?;
                }
                b'\n' => self.cursor.pos += 1,
                _ if self.cursor.at_end() => {
                    self.reserve(self.families.bytes() + self.families.finish_bytes())?;
                    return Ok(self.families.finish());
                }
                _ => self.sample()?,
            }
        }
    }

    #[inline]
    fn measure_now_and_then(&mut self) -> Result<(), ParseError> {
        if self.cursor.pos < self.next_measure {
            return Ok(());
        }
        self.next_measure = self.cursor.pos + MEASURE_BYTES;
        self.reserve(self.families.bytes())
    }

    /// Reserves memory for tables of this size, and for the texts that had to be copied.
    fn reserve(&mut self, table_bytes: usize) -> Result<(), ParseError> {
        let bytes = table_bytes + self.cursor.copied_bytes;
        self.memory.grow(bytes.saturating_sub(self.reserved_bytes))?;
        self.reserved_bytes = self.reserved_bytes.max(bytes);
        Ok(())
    }

    fn comment(&mut self) -> Result<(), ParseError> {
        let Some(keyword) = self.keyword()? else {
            return Ok(());
        };
        self.cursor.skip_blanks();
        let known = self.known_family();
        let name = match known {
            Some(_) => None,
            None => Some(self.name(METRIC, "metric name")?),
        };
        // A line that ends early has no effect. If it ends right after the name, it does not even name a family.
        if self.cursor.eat(b'\n') {
            return Ok(());
        }
        if !matches!(self.cursor.peek(), b' ' | b'\t') {
            return Err(self.cursor.unexpected("invalid metric name in comment".to_owned()));
        }
        let family = match (known, name) {
            (Some(role), _) => role.family,
            (None, Some(name)) => self.resolve(name)?.family,
            (None, None) => unreachable!("a name was read unless the family was known"),
        };
        self.cursor.skip_blanks();
        if self.cursor.eat(b'\n') {
            return Ok(());
        }
        if self.cursor.at_end() {
            return Err(self.cursor.cut_off());
        }
        match keyword {
            Keyword::Help => self.help(family),
            Keyword::Type => self.metric_type(family),
        }
    }

    /// Consumes the first word of a comment. Any word but `HELP` and `TYPE` skips the whole line.
    #[inline]
    fn keyword(&mut self) -> Result<Option<Keyword>, ParseError> {
        let usual = match self.cursor.rest() {
            [b' ', b'T', b'Y', b'P', b'E', b' ', ..] => Some(Keyword::Type),
            [b' ', b'H', b'E', b'L', b'P', b' ', ..] => Some(Keyword::Help),
            _ => None,
        };
        if usual.is_some() {
            self.cursor.pos += 5;
            return Ok(usual);
        }
        self.cursor.skip_blanks();
        match self.cursor.word()? {
            b"HELP" => Ok(Some(Keyword::Help)),
            b"TYPE" => Ok(Some(Keyword::Type)),
            _ => {
                self.cursor.rest_of_line()?;
                Ok(None)
            }
        }
    }

    fn help(&mut self, family: u32) -> Result<(), ParseError> {
        if self.families.has_help(family) {
            let name = quote(self.families.name(family).as_bytes());
            return Err(self.cursor.error(format!("second HELP line for metric name {name}")));
        }
        let help = self.cursor.help()?;
        self.lengths.check_text("HELP", help.len()).map_err(|error| self.too_long(&error))?;
        self.families.set_help(family, help);
        Ok(())
    }

    fn metric_type(&mut self, family: u32) -> Result<(), ParseError> {
        if self.families.has_type(family) {
            let name = quote(self.families.name(family).as_bytes());
            return Err(self
                .cursor
                .error(format!("second TYPE line for metric name {name}, or TYPE reported after samples")));
        }
        let word = self.cursor.rest_of_line()?;
        let kind =
            type_of_word(word).or_else(|| type_of_word(&without_backslashes(word))).ok_or_else(|| {
                self.cursor.error(format!("unknown metric type {}", quote(&without_backslashes(word))))
            })?;
        self.families.set_type(family, kind);
        Ok(())
    }

    fn sample(&mut self) -> Result<(), ParseError> {
        let labels_start = self.families.begin_sample();
        let mut role = None;
        if self.cursor.peek() != b'{' {
            role = Some(self.metric_name()?);
            self.cursor.skip_blanks();
        }
        let mut rank = f64::NAN;
        let role = match role {
            Some(role) if self.cursor.peek() != b'{' => role,
            _ => {
                self.cursor.pos += 1;
                let role = self.labels(role, labels_start, &mut rank)?;
                self.cursor.skip_blanks();
                role
            }
        };
        let value = self.value()?;
        let metric = self.families.add(role, labels_start, rank, value).map_err(|negative| {
            let name = quote(self.families.name(role.family).as_bytes());
            self.cursor.error(format!("negative {} for histogram {name}", negative.name()))
        })?;
        if self.cursor.eat(b'\n') {
            return Ok(());
        }
        let timestamp = self.timestamp()?;
        self.families.set_timestamp(metric, timestamp);
        Ok(())
    }

    /// The name at the start of a sample. Like the official parser, this fixes the type of the family at once.
    #[inline]
    fn metric_name(&mut self) -> Result<Role, ParseError> {
        if let Some(role) = self.known_family() {
            self.families.fix_type(role.family);
            return Ok(role);
        }
        let name = self.name(METRIC, "metric name")?;
        if self.is_empty(&name) {
            return Err(self.cursor.unexpected("invalid metric name".to_owned()));
        }
        if self.cursor.at_end() {
            return Err(self.cursor.cut_off());
        }
        let role = self.resolve(name)?;
        self.families.fix_type(role.family);
        Ok(role)
    }

    /// Consumes the name if it is that of the previous line, or of another part of the same histogram or summary.
    #[inline]
    fn known_family(&mut self) -> Option<Role> {
        let (role, length) = self.families.match_current(self.cursor.rest())?;
        // With the suffix of a part, the name may be too long. The caller then reads it as a whole and rejects it.
        if !self.lengths.allow_name(length) {
            return None;
        }
        self.cursor.pos += length;
        Some(role)
    }

    #[inline]
    fn name(&mut self, alphabet: Alphabet, what: &'static str) -> Result<Name<'a>, ParseError> {
        let (name, bytes) = match self.cursor.plain_name(alphabet) {
            Some(name) => (Name::Plain(name), name.len()),
            None => {
                let token = self.cursor.name(alphabet, what)?;
                let bytes = self.cursor.bytes(&token).len();
                (Name::Quoted(token), bytes)
            }
        };
        self.lengths.check_name(what, bytes).map_err(|error| self.cursor.unexpected(error.to_string()))?;
        Ok(name)
    }

    #[cold]
    fn too_long(&self, error: &TooLong) -> ParseError {
        self.cursor.error(error.to_string())
    }

    #[inline]
    fn is_empty(&self, name: &Name<'_>) -> bool {
        match name {
            Name::Plain(_) => false,
            Name::Quoted(token) => self.cursor.bytes(token).is_empty(),
        }
    }

    #[inline]
    fn resolve(&mut self, name: Name<'a>) -> Result<Role, ParseError> {
        match name {
            Name::Plain(name) => Ok(self.families.resolve(Cow::Borrowed(name), true)),
            Name::Quoted(token) => self.resolve_quoted(token),
        }
    }

    #[cold]
    fn resolve_quoted(&mut self, name: Token) -> Result<Role, ParseError> {
        let rejected = match self.cursor.text(name) {
            Ok(name) if self.rules.allow_metric_name(&name) => return Ok(self.families.resolve(name, false)),
            Ok(name) => quote(name.as_bytes()),
            Err(bytes) => quote(&bytes),
        };
        Err(self.cursor.error(format!("invalid metric name {rejected}")))
    }

    /// Consumes the labels up to the closing brace, after the opening one. If the role is not known yet, one of the entries
    /// must be the name.
    fn labels(&mut self, outer: Option<Role>, start: usize, rank: &mut f64) -> Result<Role, ParseError> {
        let mut role = outer;
        loop {
            self.measure_now_and_then()?;
            self.cursor.skip_blanks();
            if self.cursor.eat(b'}') {
                break;
            }
            let name = self.name(LABEL, "label name")?;
            if self.is_empty(&name) {
                let metric = self.quoted_name(role);
                return Err(self.cursor.unexpected(format!("invalid label name for metric {metric}")));
            }
            self.cursor.skip_blanks();
            if self.cursor.eat(b'=') {
                self.label(name, role, start, rank)?;
            } else if outer.is_none() {
                role = Some(self.inner_name(name, role, start, rank)?);
            } else {
                let found = quote_byte(self.cursor.peek());
                return Err(self.cursor.unexpected(format!("expected '=' after label name, found {found}")));
            }
            self.cursor.skip_blanks();
            if !self.cursor.eat(b',') {
                // The methods above have checked that a comma or a brace follows.
                self.cursor.pos += 1;
                break;
            }
        }
        role.ok_or_else(|| self.cursor.error("invalid metric name".to_owned()))
    }

    /// A metric name inside the braces.
    fn inner_name(
        &mut self,
        name: Name<'a>,
        role: Option<Role>,
        start: usize,
        rank: &mut f64,
    ) -> Result<Role, ParseError> {
        if role.is_some() {
            let metric = self.quoted_name(role);
            return Err(self.cursor.unexpected(format!("multiple metric names for metric {metric}")));
        }
        if !matches!(self.cursor.peek(), b',' | b'}') {
            let found = quote_byte(self.cursor.peek());
            return Err(self.cursor.unexpected(format!("unexpected end of metric name {found}")));
        }
        let role = self.resolve(name)?;
        self.families.fix_type(role.family);
        // A label before the name was read before it could be recognised as `le` or `quantile`.
        if let Some(special) = self.families.special_label(role.family)
            && let Some(label) = self.families.take_label(start, special)
        {
            *rank = self.rank(special, label.as_bytes())?;
        }
        Ok(role)
    }

    /// One label, after its `=`.
    #[inline]
    fn label(
        &mut self,
        name: Name<'a>,
        role: Option<Role>,
        start: usize,
        rank: &mut f64,
    ) -> Result<(), ParseError> {
        let name = self.label_name(name)?;
        let special = role.and_then(|role| self.families.special_label(role.family));
        let is_special = special == Some(&*name);
        if !is_special && self.families.has_label(start, &name) {
            let metric = self.quoted_name(role);
            return Err(self.cursor.error(format!("duplicate label names for metric {metric}")));
        }
        self.cursor.skip_blanks();
        if !self.cursor.eat(b'"') {
            let found = quote_byte(self.cursor.peek());
            return Err(self
                .cursor
                .unexpected(format!("expected '\"' at start of label value, found {found}")));
        }
        let value = self.cursor.quoted("label value")?;
        let value = self
            .cursor
            .text(value)
            .map_err(|bytes| self.cursor.error(format!("invalid label value {}", quote(&bytes))))?;
        self.lengths.check_text("label value", value.len()).map_err(|error| self.too_long(&error))?;
        if let Some(special) = special.filter(|_| is_special) {
            *rank = self.rank(special, value.as_bytes())?;
        }
        self.cursor.skip_blanks();
        if !matches!(self.cursor.peek(), b',' | b'}') {
            let value = quote(value.as_bytes());
            return Err(self.cursor.unexpected(format!("unexpected end of label value {value}")));
        }
        if !is_special {
            self.families.push_label(Label { name, value });
        }
        Ok(())
    }

    #[inline]
    fn label_name(&mut self, name: Name<'a>) -> Result<Cow<'a, str>, ParseError> {
        match name {
            Name::Plain(name) if name != METRIC_NAME_LABEL => Ok(Cow::Borrowed(name)),
            Name::Plain(_) => Err(self.reserved_label()),
            Name::Quoted(token) => self.quoted_label_name(token),
        }
    }

    #[cold]
    fn quoted_label_name(&mut self, name: Token) -> Result<Cow<'a, str>, ParseError> {
        let rejected = match self.cursor.text(name) {
            Ok(name) if name == METRIC_NAME_LABEL => return Err(self.reserved_label()),
            Ok(name) if self.rules.allow_label_name(&name) => return Ok(name),
            Ok(name) => quote(name.as_bytes()),
            Err(bytes) => quote(&bytes),
        };
        Err(self.cursor.error(format!("invalid label name {rejected}")))
    }

    #[cold]
    fn reserved_label(&self) -> ParseError {
        self.cursor.error(format!("label name {} is reserved", quote(METRIC_NAME_LABEL.as_bytes())))
    }

    /// Parses the value of `le` or `quantile`.
    fn rank(&self, label: &str, value: &[u8]) -> Result<f64, ParseError> {
        number::parse_float(value).ok_or_else(|| {
            self.cursor.error(format!("expected float as value for '{label}' label, got {}", quote(value)))
        })
    }

    #[inline]
    fn value(&mut self) -> Result<f64, ParseError> {
        let rest = self.cursor.rest();
        if let Some((value, length)) = number::scan_decimal(rest)
            && let Some(b'\n' | b' ' | b'\t') = rest.get(length)
        {
            self.cursor.pos += length;
            return Ok(value);
        }
        let word = self.cursor.word()?;
        number::parse_float(word)
            .ok_or_else(|| self.cursor.error(format!("expected float as value, got {}", quote(word))))
    }

    /// A timestamp after a blank, and the end of the line.
    #[cold]
    fn timestamp(&mut self) -> Result<i64, ParseError> {
        self.cursor.skip_blanks();
        let word = self.cursor.word()?;
        let timestamp = str::from_utf8(word).ok().and_then(|word| word.parse().ok()).ok_or_else(|| {
            self.cursor.error(format!("expected integer as timestamp, got {}", quote(word)))
        })?;
        let spurious = without_backslashes(self.cursor.rest_of_line()?);
        if spurious.is_empty() {
            return Ok(timestamp);
        }
        Err(self.cursor.error(format!("spurious string after timestamp: {}", quote(&spurious))))
    }

    /// The metric name for an error, empty if it is not known yet.
    #[cold]
    fn quoted_name(&self, role: Option<Role>) -> String {
        quote(role.map_or("", |role| self.families.name(role.family)).as_bytes())
    }
}

/// As in the official parser, backslashes are ignored in a type and after a timestamp.
fn without_backslashes(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    text.iter().copied().filter(|&byte| byte != b'\\').collect()
}

fn type_of_word(word: &[u8]) -> Option<MetricType> {
    [
        (&b"gauge"[..], MetricType::Gauge),
        (b"counter", MetricType::Counter),
        (b"histogram", MetricType::Histogram),
        (b"summary", MetricType::Summary),
        (b"untyped", MetricType::Untyped),
        (b"gaugehistogram", MetricType::GaugeHistogram),
        (b"gauge_histogram", MetricType::GaugeHistogram),
    ]
    .into_iter()
    .find(|(name, _)| word.eq_ignore_ascii_case(name))
    .map(|(_, kind)| kind)
}
