//! Selectors as in Prometheus: `up{job="a",zone=~"eu-.*"}`.
//!
//! Only the selector itself is accepted, without ranges, offsets and operators. The parsers that crates offer cover the whole
//! query language, with a parser generator and its tables.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::names::{LABEL, METRIC, METRIC_NAME_LABEL, prefix_len};

/// The compiled sizes of regular expressions that are tried, in bytes. An expression beyond the last one is rejected.
const REGEX_BYTES: [usize; 9] =
    [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, REGEX_BYTES_MAX];
/// The largest compiled size of a regular expression, and of the states that it caches, in bytes.
const REGEX_BYTES_MAX: usize = 256 << 10;
/// The largest size of a selector, in bytes.
const SELECTOR_BYTES_MAX: usize = 16 * 1024;
/// The cost of comparing a byte, in units.
const COMPARE_COST: u64 = 4;
/// What a regular expression can cost for each byte of the text, per unit: it looks at each part of the program. A unit is about eight
/// nanoseconds.
const PROGRAM_BYTES_PER_UNIT: u64 = 64;
/// The largest number of matchers in a selector.
const MATCHERS_MAX: usize = 64;

/// A selector. A series matches if all matchers match.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Matcher>,
    /// Matchers of the metric name.
    names: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    test: Test,
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    /// With the size of the program.
    Regex(Regex, usize),
}

/// Why a selector cannot be parsed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectorError {
    /// Something else was expected.
    #[error("invalid selector: expected {expected}, found {found:?}")]
    Unexpected {
        /// The expected item.
        expected: &'static str,
        /// The start of the rest of the text.
        found: String,
    },
    /// A quoted string has no closing quote.
    #[error("invalid selector: missing closing quote")]
    UnclosedQuote,
    /// An escape sequence is unknown or incomplete.
    #[error("invalid selector: unknown escape sequence in a quoted string")]
    UnknownEscape,
    /// A regular expression is invalid or too large.
    #[error("invalid selector: {0}")]
    Regex(#[from] regex::Error),
    /// The text is too long.
    #[error("invalid selector: longer than {SELECTOR_BYTES_MAX} bytes")]
    TooLong,
    /// There are too many matchers.
    #[error("invalid selector: more than {MATCHERS_MAX} matchers")]
    TooManyMatchers,
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// The text is not a selector, a regular expression is invalid or too large, or there are too many matchers.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong);
        }
        let mut reader = Reader { rest: text.trim_start() };
        let mut selector = Self::default();
        let name = reader.word(prefix_len(reader.rest.as_bytes(), METRIC));
        if !name.is_empty() {
            selector.add(METRIC_NAME_LABEL, "=", name.to_owned())?;
        }
        if reader.eat("{") {
            while !reader.eat("}") {
                selector.read_matcher(&mut reader)?;
                if !reader.eat(",") && !reader.rest.starts_with('}') {
                    return Err(reader.unexpected("a comma or a closing brace"));
                }
            }
        } else if name.is_empty() {
            return Err(reader.unexpected("a metric name or an opening brace"));
        }
        match reader.rest {
            "" => Ok(selector),
            _ => Err(reader.unexpected("the end of the selector")),
        }
    }

    fn read_matcher(&mut self, reader: &mut Reader<'_>) -> Result<(), SelectorError> {
        let is_quoted = reader.rest.starts_with(['"', '\'', '`']);
        let label = if is_quoted {
            reader.string()?
        } else {
            reader.word(prefix_len(reader.rest.as_bytes(), LABEL)).to_owned()
        };
        if label.is_empty() {
            return Err(reader.unexpected("a label name"));
        }
        match ["=~", "!~", "!=", "="].into_iter().find(|operator| reader.eat(operator)) {
            Some(operator) => {
                let value = reader.string()?;
                self.add(&label, operator, value)
            }
            // A quoted name without an operator is the metric name.
            None if is_quoted => self.add(METRIC_NAME_LABEL, "=", label),
            None => Err(reader.unexpected("an operator")),
        }
    }

    fn add(&mut self, label: &str, operator: &str, value: String) -> Result<(), SelectorError> {
        if self.labels.len() + self.names.len() >= MATCHERS_MAX {
            return Err(SelectorError::TooManyMatchers);
        }
        let test = if operator.ends_with('~') { compile(&value)? } else { Test::Equal(value) };
        let matchers = if label == METRIC_NAME_LABEL { &mut self.names } else { &mut self.labels };
        matchers.push(Matcher { label: label.to_owned(), test, is_negated: operator.starts_with('!') });
        Ok(())
    }

    /// Whether the labels match. A missing label has the empty value.
    pub fn matches_labels(&self, labels: &[(Cow<'_, str>, Cow<'_, str>)]) -> bool {
        self.labels.iter().all(|matcher| {
            let label = labels.iter().find(|(name, _)| *name == matcher.label);
            matcher.matches(label.map_or("", |(_, value)| value))
        })
    }

    /// The most that [`matches_labels`](Self::matches_labels) can cost, in units, and the most that one of its comparisons can.
    pub fn labels_cost(&self, labels: &[(Cow<'_, str>, Cow<'_, str>)]) -> Cost {
        let mut cost = Cost::default();
        for matcher in &self.labels {
            let value =
                labels.iter().find(|(name, _)| *name == matcher.label).map_or(0, |(_, value)| value.len());
            cost.add(matcher.cost(value));
        }
        cost
    }

    /// The most that [`matches_name`](Self::matches_name) can cost.
    pub fn name_cost(&self, name: &str) -> Cost {
        let mut cost = Cost::default();
        self.names.iter().for_each(|matcher| cost.add(matcher.cost(name.len())));
        cost
    }

    /// Whether the selector has matchers of the metric name.
    pub fn has_name_matchers(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether the metric name matches.
    pub fn matches_name(&self, name: &str) -> bool {
        self.names.iter().all(|matcher| matcher.matches(name))
    }
}

/// What a match can cost at most, in units of about eight nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of all comparisons.
    pub total: u64,
    /// Of the most expensive comparison, which cannot be interrupted.
    pub longest: u64,
}

impl Cost {
    /// The cost of both.
    pub fn and(self, other: Self) -> Self {
        Self { total: self.total.saturating_add(other.total), longest: self.longest.max(other.longest) }
    }

    fn add(&mut self, comparison: u64) {
        self.total = self.total.saturating_add(comparison);
        self.longest = self.longest.max(comparison);
    }
}

/// Compiles an expression, which must match the whole value.
fn compile(expression: &str) -> Result<Test, regex::Error> {
    let anchored = format!("^(?s:{expression})$");
    let mut result = Err(regex::Error::CompiledTooBig(0));
    // The crate does not tell the size of a program, only whether it fits.
    for bytes in REGEX_BYTES {
        let mut builder = RegexBuilder::new(&anchored);
        result = builder.size_limit(bytes).dfa_size_limit(REGEX_BYTES_MAX).nest_limit(64).build();
        match result {
            Ok(regex) => return Ok(Test::Regex(regex, bytes)),
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => return Err(error),
        }
    }
    result.map(|regex| Test::Regex(regex, usize::MAX))
}

impl Matcher {
    /// The most that a comparison with a value of so many bytes can cost, in units.
    fn cost(&self, value_bytes: usize) -> u64 {
        let bytes = value_bytes as u64 + 1;
        match &self.test {
            Test::Equal(_) => bytes * COMPARE_COST,
            Test::Regex(_, program) => {
                bytes.saturating_mul((*program as u64 / PROGRAM_BYTES_PER_UNIT).max(COMPARE_COST))
            }
        }
    }

    fn matches(&self, value: &str) -> bool {
        let is_match = match &self.test {
            Test::Equal(wanted) => wanted == value,
            Test::Regex(regex, _) => regex.is_match(value),
        };
        is_match != self.is_negated
    }
}

/// The rest of the text, without leading blanks.
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn word(&mut self, length: usize) -> &'t str {
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest.trim_start();
        word
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest.starts_with(sign);
        if found {
            self.word(sign.len());
        }
        found
    }

    /// A string in one of Go's three kinds of quotes. Backticks have no escape sequences.
    fn string(&mut self) -> Result<String, SelectorError> {
        let Some(quote) = self.rest.chars().next().filter(|quote| ['"', '\'', '`'].contains(quote)) else {
            return Err(self.unexpected("a quoted string"));
        };
        let mut text = String::new();
        let mut chars = self.rest[1..].chars();
        loop {
            match chars.next() {
                None => return Err(SelectorError::UnclosedQuote),
                Some(end) if end == quote => break,
                Some('\\') if quote != '`' => text.push(escaped(&mut chars, quote)?),
                Some(plain) => text.push(plain),
            }
        }
        self.rest = chars.as_str().trim_start();
        Ok(text)
    }

    fn unexpected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Unexpected { expected, found: self.rest.chars().take(20).collect() }
    }
}

/// The character of an escape sequence, after its backslash.
fn escaped(chars: &mut std::str::Chars<'_>, quote: char) -> Result<char, SelectorError> {
    let unknown = SelectorError::UnknownEscape;
    let Some(sign) = chars.next() else { return Err(unknown) };
    let digits = match sign {
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\u{b}'),
        '\\' => return Ok('\\'),
        sign if sign == quote => return Ok(sign),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return Err(unknown),
    };
    let number = (0..digits).try_fold(0_u32, |number, _| {
        let digit = chars.next().and_then(|digit| digit.to_digit(16))?;
        number.checked_mul(16)?.checked_add(digit)
    });
    number.and_then(char::from_u32).ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Vec<_> = labels.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v))).collect();
        Selector::parse(selector)
            .unwrap_or_else(|problem| panic!("{selector}: {problem}"))
            .matches_labels(&labels)
    }

    #[test]
    fn matchers_match_as_in_prometheus() {
        let labels = [("job", "backup"), ("zone", "eu-1"), ("a.b", "\n")];
        for (selector, expected) in [
            ("{}", true),
            ("{job=\"backup\"}", true),
            (" { job = 'backup' , } ", true),
            ("{job=`backup`}", true),
            ("{job=\"b\"}", false),
            ("{job!=\"b\"}", true),
            ("{zone=~\"eu-.\"}", true),
            ("{zone=~\"eu\"}", false),
            ("{zone!~\"eu|us\"}", true),
            ("{zone=~\"us|eu-1\",job=~\".+\"}", true),
            ("{zone=~\"us|eu-1\",job=\"x\"}", false),
            ("{absent=\"\"}", true),
            ("{absent=~\".+\"}", false),
            ("{\"a.b\"=\"\\n\"}", true),
            ("{\"a.b\"=~\".\"}", true),
            ("{\"a.b\"=\"\\u000a\"}", true),
            ("{\"a.b\"=`\\n`}", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn the_cost_of_an_expression_grows_with_its_program_and_the_text() {
        let cost = |selector: &str, bytes: usize| {
            let value = "a".repeat(bytes);
            Selector::parse(selector).expect("valid").labels_cost(&[("job".into(), value.into())])
        };
        let (equal, simple) = (cost("{job='a'}", 100), cost("{job=~'eu-.*'}", 100));
        let hostile = cost("{job=~'[ab]*a[ab]{1500}c'}", 100);
        assert!(
            equal.total < simple.total && 10 * simple.total < hostile.total,
            "{equal:?} {simple:?} {hostile:?}"
        );
        let longer = cost("{job=~'[ab]*a[ab]{1500}c'}", 10_000);
        assert!(longer.longest > 90 * hostile.longest);
        let twice = cost("{job=~'eu-.*',job=~'eu-.*'}", 100);
        assert_eq!((twice.total, twice.longest), (2 * simple.total, simple.longest));
        assert_eq!(cost("{other=~'eu-.*'}", 100), cost("{other=~'eu-.*'}", 10_000));
    }

    #[test]
    fn the_metric_name_can_be_given_in_three_ways() {
        for selector in ["up", "up{}", "{__name__=\"up\"}", "{\"up\"}", "{__name__=~\"u.\",__name__!=\"us\"}"]
        {
            let selector = Selector::parse(selector).expect("valid");
            assert!(selector.has_name_matchers() && selector.matches_labels(&[]));
            assert!(selector.matches_name("up") && !selector.matches_name("down"));
        }
        assert!(!Selector::parse("{job=\"up\"}").expect("valid").has_name_matchers());
    }

    #[test]
    fn rejects_other_text() {
        for text in [
            "",
            " ",
            "{",
            "{job}",
            "{job=}",
            "{job=\"a}",
            "{job=\"a\" zone=\"b\"}",
            "{job=\"a\"}[5m]",
            "up + 1",
            "1up",
            "{job=~\"(\"}",
            "{job=\"\\q\"}",
            "{job=\"\\ud800\"}",
            "{=\"a\"}",
            "{,}",
            "{job=~\"(a{1000}){1000}\"}",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        let many = format!("{{{}}}", "a=\"b\",".repeat(MATCHERS_MAX + 1));
        assert!(Selector::parse(&many).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "[a{}\"'`=~!,\\\\x \u{e4}(]{0,20}") {
            let _ = Selector::parse(&text);
        }
    }
}
