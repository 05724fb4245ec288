//! The grammar of a line: a comment, or a sample.

use std::borrow::Cow;

use super::assembly::{Assembly, Role};
use super::cursor::{Cursor, Token};
use super::error::{ParseError, quote, quote_byte};
use crate::exposition::model::{Families, Label, MetricType};
use crate::exposition::names::{LABEL, METRIC, NameRules};
use crate::exposition::number;

/// Reads a body line by line into an [`Assembly`].
pub(super) struct Parser<'a> {
    cursor: Cursor<'a>,
    assembly: Assembly<'a>,
    rules: NameRules,
}

impl<'a> Parser<'a> {
    pub(super) fn new(body: &'a [u8], rules: NameRules) -> Self {
        Self { cursor: Cursor::new(body), assembly: Assembly::for_body(body.len()), rules }
    }

    pub(super) fn run(mut self) -> Result<Families<'a>, ParseError> {
        loop {
            self.cursor.begin_line();
            self.cursor.skip_blanks();
            match self.cursor.peek() {
                b'#' => {
                    self.cursor.pos += 1;
                    self.comment()?;
                }
                b'\n' => self.cursor.pos += 1,
                _ if self.cursor.at_end() => return Ok(self.assembly.finish()),
                _ => self.sample()?,
            }
        }
    }

    fn comment(&mut self) -> Result<(), ParseError> {
        self.cursor.skip_blanks();
        let keyword = self.cursor.word()?;
        if keyword != b"HELP" && keyword != b"TYPE" {
            self.cursor.rest_of_line()?;
            return Ok(());
        }
        self.cursor.skip_blanks();
        let known = self.known_family();
        let name = match known {
            Some(_) => None,
            None => Some(self.cursor.name(METRIC, "metric name")?),
        };
        // A line that ends early says nothing; right behind the name it does not even name a family.
        if self.cursor.eat(b'\n') {
            return Ok(());
        }
        if !matches!(self.cursor.peek(), b' ' | b'\t') {
            return Err(self.cursor.unexpected("invalid metric name in comment".to_owned()));
        }
        let family = match (known, name) {
            (Some(role), _) => role.family,
            (None, Some(name)) => self.resolve(name)?.family,
            (None, None) => unreachable!("a name is read where none is known"),
        };
        self.cursor.skip_blanks();
        match (self.cursor.peek(), keyword) {
            (b'\n', _) => {
                self.cursor.pos += 1;
                Ok(())
            }
            _ if self.cursor.at_end() => Err(self.cursor.cut_off()),
            (_, b"HELP") => self.help(family),
            _ => self.metric_type(family),
        }
    }

    fn help(&mut self, family: u32) -> Result<(), ParseError> {
        if self.assembly.has_help(family) {
            let name = quote(self.assembly.name(family).as_bytes());
            return Err(self.cursor.error(format!("second HELP line for metric name {name}")));
        }
        let help = self.cursor.help()?;
        self.assembly.set_help(family, help);
        Ok(())
    }

    fn metric_type(&mut self, family: u32) -> Result<(), ParseError> {
        if self.assembly.has_type(family) {
            let name = quote(self.assembly.name(family).as_bytes());
            return Err(self
                .cursor
                .error(format!("second TYPE line for metric name {name}, or TYPE reported after samples")));
        }
        let word = Token::Plain(self.cursor.rest_of_line()?);
        let word = without_backslashes(self.cursor.bytes(&word));
        let Some(kind) = type_of_word(&word) else {
            return Err(self.cursor.error(format!("unknown metric type {}", quote(&word))));
        };
        self.assembly.set_type(family, kind);
        Ok(())
    }

    fn sample(&mut self) -> Result<(), ParseError> {
        let labels_start = self.assembly.begin_sample();
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
        let metric = self.assembly.add(role, labels_start, rank, value).map_err(|negative| {
            let name = quote(self.assembly.name(role.family).as_bytes());
            self.cursor.error(format!("negative {negative} for histogram {name}"))
        })?;
        if self.cursor.eat(b'\n') {
            return Ok(());
        }
        let timestamp = self.timestamp()?;
        self.assembly.set_timestamp(metric, timestamp);
        Ok(())
    }

    /// The name in front of a sample; official fixes a family's type as soon as it has read it.
    #[inline]
    fn metric_name(&mut self) -> Result<Role, ParseError> {
        if let Some(role) = self.known_family() {
            self.assembly.fix_type(role.family);
            return Ok(role);
        }
        let name = self.cursor.name(METRIC, "metric name")?;
        if self.cursor.bytes(&name).is_empty() {
            return Err(self.cursor.unexpected("invalid metric name".to_owned()));
        }
        if self.cursor.at_end() {
            return Err(self.cursor.cut_off());
        }
        let role = self.resolve(name)?;
        self.assembly.fix_type(role.family);
        Ok(role)
    }

    /// Steps over the name if it is that of the line before, or of a part of the same histogram or summary.
    #[inline]
    fn known_family(&mut self) -> Option<Role> {
        let (role, length) = self.assembly.current_in_front_of(self.cursor.rest())?;
        self.cursor.pos += length;
        Some(role)
    }

    fn resolve(&mut self, name: Token) -> Result<Role, ParseError> {
        let refused = match self.cursor.text(name) {
            Ok(name) if self.rules.allow_metric_name(&name) => return Ok(self.assembly.resolve(name)),
            Ok(name) => quote(name.as_bytes()),
            Err(bytes) => quote(&bytes),
        };
        Err(self.cursor.error(format!("invalid metric name {refused}")))
    }

    /// Labels up to the closing brace; the opening one was read. Without a role yet, one of them must be the name.
    fn labels(&mut self, outer: Option<Role>, start: usize, rank: &mut f64) -> Result<Role, ParseError> {
        let mut role = outer;
        loop {
            self.cursor.skip_blanks();
            if self.cursor.eat(b'}') {
                break;
            }
            let name = self.cursor.name(LABEL, "label name")?;
            if self.cursor.bytes(&name).is_empty() {
                let metric = self.shown(role);
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
                // Whoever read the label has seen to it that a comma or brace follows.
                self.cursor.pos += 1;
                break;
            }
        }
        role.ok_or_else(|| self.cursor.error("invalid metric name".to_owned()))
    }

    /// A metric's name within the braces.
    fn inner_name(
        &mut self,
        name: Token,
        role: Option<Role>,
        start: usize,
        rank: &mut f64,
    ) -> Result<Role, ParseError> {
        if role.is_some() {
            let metric = self.shown(role);
            return Err(self.cursor.unexpected(format!("multiple metric names for metric {metric}")));
        }
        if !matches!(self.cursor.peek(), b',' | b'}') {
            let found = quote_byte(self.cursor.peek());
            return Err(self.cursor.unexpected(format!("unexpected end of metric name {found}")));
        }
        let role = self.resolve(name)?;
        self.assembly.fix_type(role.family);
        // Labels in front of the name were read before anyone could know that one of them is none.
        if let Some(special) = self.assembly.special_label(role.family)
            && let Some(label) = self.assembly.take_label(start, special)
        {
            *rank = self.rank(special, label.as_bytes())?;
        }
        Ok(role)
    }

    /// One label behind its `=`.
    #[inline]
    fn label(
        &mut self,
        name: Token,
        role: Option<Role>,
        start: usize,
        rank: &mut f64,
    ) -> Result<(), ParseError> {
        let name = self.label_name(name)?;
        let special = role.and_then(|role| self.assembly.special_label(role.family));
        let is_special = special == Some(&*name);
        if !is_special && self.assembly.has_label(start, &name) {
            let metric = self.shown(role);
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
        if let Some(special) = special.filter(|_| is_special) {
            *rank = self.rank(special, value.as_bytes())?;
        }
        self.cursor.skip_blanks();
        if !matches!(self.cursor.peek(), b',' | b'}') {
            let value = quote(value.as_bytes());
            return Err(self.cursor.unexpected(format!("unexpected end of label value {value}")));
        }
        if !is_special {
            self.assembly.push_label(Label { name, value });
        }
        Ok(())
    }

    #[inline]
    fn label_name(&mut self, name: Token) -> Result<Cow<'a, str>, ParseError> {
        let refused = match self.cursor.text(name) {
            Ok(name) if name == "__name__" => {
                return Err(self.cursor.error("label name \"__name__\" is reserved".to_owned()));
            }
            Ok(name) if self.rules.allow_label_name(&name) => return Ok(name),
            Ok(name) => quote(name.as_bytes()),
            Err(bytes) => quote(&bytes),
        };
        Err(self.cursor.error(format!("invalid label name {refused}")))
    }

    /// Reads `le` or `quantile`.
    fn rank(&self, label: &str, value: &[u8]) -> Result<f64, ParseError> {
        number::parse_float(value).map_err(|_| {
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
            .map_err(|_| self.cursor.error(format!("expected float as value, got {}", quote(word))))
    }

    /// A timestamp behind a blank, and the end of the line.
    #[cold]
    fn timestamp(&mut self) -> Result<i64, ParseError> {
        self.cursor.skip_blanks();
        let word = self.cursor.word()?;
        let timestamp = str::from_utf8(word).ok().and_then(|word| word.parse().ok()).ok_or_else(|| {
            self.cursor.error(format!("expected integer as timestamp, got {}", quote(word)))
        })?;
        let spurious = Token::Plain(self.cursor.rest_of_line()?);
        let spurious = without_backslashes(self.cursor.bytes(&spurious));
        if spurious.is_empty() {
            return Ok(timestamp);
        }
        Err(self.cursor.error(format!("spurious string after timestamp: {}", quote(&spurious))))
    }

    /// A metric's name for an error, empty if it is not known yet.
    #[cold]
    fn shown(&self, role: Option<Role>) -> String {
        quote(role.map_or("", |role| self.assembly.name(role.family)).as_bytes())
    }
}

/// In a type, and behind a timestamp, backslashes do not count.
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
    .find(|(spelling, _)| word.eq_ignore_ascii_case(spelling))
    .map(|(_, kind)| kind)
}
