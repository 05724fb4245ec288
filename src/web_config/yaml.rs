//! YAML as Go's `yaml.v2` reads it: the nodes of the first document, and the types of plain words.
//!
//! libyaml does the scanning, of which Go's scanner is a translation, so both accept the same texts with the same messages.
//!
//! Messages contain line numbers and types. They contain words of the file only if those look like a name, because a file with a wrong
//! indentation may have a key or a hash in the place of a name.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libyaml_safer::{Error, ErrorKind, Event, EventData, Parser};

/// Nesting beyond this is refused. The deepest valid file has three levels.
const DEPTH_MAX: usize = 100;
/// The longest word that a message repeats.
const NAME_BYTES_MAX: usize = 48;

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(String);

impl YamlError {
    pub(super) fn new(message: impl std::fmt::Display) -> Self {
        Self(format!("yaml: {message}"))
    }

    /// Problems with the types of values, one a line, as Go joins them.
    pub(super) fn types(problems: &[String]) -> Self {
        Self(format!("yaml: unmarshal errors:\n  {}", problems.join("\n  ")))
    }

    /// A message of a type that reads itself, which stands alone.
    pub(super) fn bare(message: String) -> Self {
        Self(message)
    }
}

impl From<Error> for YamlError {
    fn from(error: Error) -> Self {
        let line = |mark: Option<libyaml_safer::Mark>| mark.map_or(0, |mark| mark.line);
        let line = match line(error.problem_mark()) {
            0 => line(error.context_mark()),
            line => line + u64::from(error.kind() == ErrorKind::Scanner),
        };
        if line == 0 {
            Self::new(error.problem())
        } else {
            Self::new(format_args!("line {line}: {}", error.problem()))
        }
    }
}

/// A value with its position.
#[derive(Debug)]
pub(super) struct Node {
    /// The number of its line, from 1.
    pub line: u64,
    /// Its explicit tag, in the long form.
    pub tag: Option<String>,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A word, and whether its type follows from its look, because it is neither quoted nor tagged.
    Scalar {
        value: String,
        is_plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// What a scalar means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Also integers that need more than 63 bits.
    Float(f64),
    Text(String),
}

/// Reads the first document; `None` if there is none.
pub(super) fn parse(text: &[u8]) -> Result<Option<Rc<Node>>, YamlError> {
    // The library panics where it has no error, for example on a tag before a comma.
    catch_unwind(|| document(text)).unwrap_or_else(|_| Err(YamlError::new("unsupported syntax")))
}

fn document(text: &[u8]) -> Result<Option<Rc<Node>>, YamlError> {
    let mut input = text;
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut builder = Builder { parser, anchors: HashMap::new() };
    loop {
        match builder.parser.parse()?.data {
            EventData::StreamEnd => return Ok(None),
            EventData::StreamStart { .. } => {}
            EventData::DocumentStart { .. } => break,
            _ => return Err(YamlError::new("expected a document")),
        }
    }
    let event = builder.parser.parse()?;
    let root = builder.node(event, 0)?;
    // What follows the document has to be its end; what follows its end is ignored.
    match builder.parser.parse()?.data {
        EventData::DocumentEnd { .. } => Ok(Some(root)),
        _ => Err(YamlError::new("expected the end of the document")),
    }
}

struct Builder<'r, 'b> {
    parser: Parser<&'r mut &'b [u8]>,
    /// `None` while the value is not complete.
    anchors: HashMap<String, Option<Rc<Node>>>,
}

impl Builder<'_, '_> {
    fn node(&mut self, event: Event, depth: usize) -> Result<Rc<Node>, YamlError> {
        if depth > DEPTH_MAX {
            return Err(YamlError::new(format_args!("exceeded max depth of {DEPTH_MAX}")));
        }
        let line = event.start_mark.line + 1;
        let (anchor, tag, content) = match event.data {
            EventData::Alias { anchor } => {
                return match self.anchors.get(&anchor) {
                    Some(Some(node)) => Ok(node.clone()),
                    Some(None) => Err(YamlError::new(format_args!(
                        "anchor {} value contains itself",
                        shown(&anchor, '\'')
                    ))),
                    None => Err(YamlError::new(format_args!(
                        "unknown anchor {} referenced",
                        shown(&anchor, '\'')
                    ))),
                };
            }
            EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                // The tag `!` makes any word text, as quotes do.
                let is_plain = plain_implicit && tag.is_none();
                (anchor, tag, Content::Scalar { value, is_plain })
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                self.open(anchor.as_deref());
                let mut items = Vec::new();
                loop {
                    let event = self.parser.parse()?;
                    if event.data == EventData::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, depth + 1)?);
                }
                (anchor, tag, Content::Sequence(items))
            }
            EventData::MappingStart { anchor, tag, .. } => {
                self.open(anchor.as_deref());
                let mut pairs = Vec::new();
                loop {
                    let event = self.parser.parse()?;
                    if event.data == EventData::MappingEnd {
                        break;
                    }
                    let key = self.node(event, depth + 1)?;
                    let event = self.parser.parse()?;
                    pairs.push((key, self.node(event, depth + 1)?));
                }
                (anchor, tag, Content::Mapping(pairs))
            }
            _ => return Err(YamlError::new("expected a value")),
        };
        let node = Rc::new(Node { line, tag: tag.filter(|tag| tag != "!"), content });
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn open(&mut self, anchor: Option<&str>) {
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor.to_owned(), None);
        }
    }
}

const TAGS: &str = "tag:yaml.org,2002:";

impl Node {
    /// The explicit or implicit type in the short form, such as `!!str`.
    pub(super) fn type_name(&self) -> String {
        if let Some(tag) = &self.tag {
            return tag.strip_prefix(TAGS).map_or_else(|| tag.clone(), |name| format!("!!{name}"));
        }
        let name = match &self.content {
            Content::Sequence(_) => "seq",
            Content::Mapping(_) => "map",
            Content::Scalar { is_plain: false, .. } => "str",
            Content::Scalar { value, .. } => match resolve(value) {
                Scalar::Null => "null",
                Scalar::Bool(_) => "bool",
                Scalar::Int(_) => "int",
                Scalar::Float(_) => "float",
                Scalar::Text(_) => "str",
            },
        };
        format!("!!{name}")
    }

    /// The meaning of a scalar; `None` for lists and maps.
    ///
    /// # Errors
    /// If its tag does not fit.
    pub(super) fn scalar(&self) -> Result<Option<Scalar>, YamlError> {
        let Content::Scalar { value, is_plain } = &self.content else { return Ok(None) };
        let Some(tag) = &self.tag else {
            return Ok(Some(if *is_plain { resolve(value) } else { Scalar::Text(value.clone()) }));
        };
        let resolved = resolve(value);
        Ok(Some(match (tag.strip_prefix(TAGS), resolved) {
            (Some("bool"), resolved @ Scalar::Bool(_))
            | (Some("int"), resolved @ Scalar::Int(_))
            | (Some("float"), resolved @ Scalar::Float(_)) => resolved,
            (Some("null"), _) if value.is_empty() => Scalar::Null,
            (Some("null"), Scalar::Null) => Scalar::Null,
            (Some("float"), Scalar::Int(number)) => Scalar::Float(number as f64),
            (Some(name @ ("bool" | "int" | "float" | "null")), _) => {
                return Err(YamlError::new(format_args!(
                    "cannot decode a value in line {} as a !!{name}",
                    self.line
                )));
            }
            (Some("binary"), _) => {
                let bytes: Vec<u8> = value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
                let text = STANDARD.decode(bytes).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                Scalar::Text(
                    text.ok_or_else(|| YamlError::new("!!binary value contains invalid base64 data"))?,
                )
            }
            _ => Scalar::Text(value.clone()),
        }))
    }

    /// Whether the key merges another map into its own.
    pub(super) fn is_merge(&self) -> bool {
        match &self.content {
            Content::Scalar { value, is_plain } => {
                value == "<<" && (*is_plain || self.tag.as_deref() == Some("tag:yaml.org,2002:merge"))
            }
            _ => false,
        }
    }
}

/// The meaning of a plain word in YAML 1.1, as far as Go's library supports it.
fn resolve(word: &str) -> Scalar {
    match word {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match word.as_bytes()[0] {
        b'.' => float(word),
        b'0'..=b'9' | b'+' | b'-' => {
            let digits = word.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(word.to_owned()))
}

/// Integers as in Go's source code, including the old form of octal numbers.
fn integer(word: &str) -> Option<Scalar> {
    let (sign, digits) = match word.as_bytes().first()? {
        b'-' => (-1, &word[1..]),
        b'+' => (1, &word[1..]),
        _ => (1, word),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let number = sign * i128::from(u64::from_str_radix(digits, radix).ok()?);
    Some(i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int))
}

/// Decimal floats: `1.5`, `.5`, `1e3`. The forms of Rust that YAML does not have (`inf`) do not start like a number.
fn float(word: &str) -> Option<Scalar> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    if !unsigned.starts_with(|first: char| first == '.' || first.is_ascii_digit()) {
        return None;
    }
    word.parse().ok().map(Scalar::Float)
}

/// A word for a message, in quotes if `quote` is not a space. Words that do not look like a name are not shown.
pub(super) fn shown(word: &str, quote: char) -> String {
    let is_name = word.len() <= NAME_BYTES_MAX
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    match (is_name, quote) {
        (false, _) => "(not shown)".to_owned(),
        (true, ' ') => word.to_owned(),
        (true, quote) => format!("{quote}{word}{quote}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_types_of_yaml_1_1() {
        for word in ["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"] {
            assert_eq!(resolve(word), Scalar::Bool(true), "{word}");
        }
        for word in ["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"] {
            assert_eq!(resolve(word), Scalar::Bool(false), "{word}");
        }
        for word in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(resolve(word), Scalar::Null, "{word}");
        }
        for (word, number) in [
            ("0", 0),
            ("-7", -7),
            ("+7", 7),
            ("1_000", 1000),
            ("0x1F", 31),
            ("0b11", 3),
            ("0o17", 15),
            ("017", 15),
            ("-0x10", -16),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(resolve(word), Scalar::Int(number), "{word}");
        }
        for (word, number) in [
            ("1.5", 1.5),
            (".5", 0.5),
            ("2.0", 2.0),
            ("2.", 2.0),
            ("1e3", 1e3),
            ("08", 8.0),
            ("-.inf", f64::NEG_INFINITY),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
        ] {
            assert_eq!(resolve(word), Scalar::Float(number), "{word}");
        }
        for word in [
            "tRUE", "oN", "1s", "0x", "0b2", "-", "+", ".", "-inf", "1.5.2", "1e", "--1", "0x-1", "é", "1:30",
        ] {
            assert_eq!(resolve(word), Scalar::Text(word.to_owned()), "{word}");
        }
    }

    #[test]
    fn only_the_first_document_counts() {
        let line = |text: &str| parse(text.as_bytes()).map(|root| root.map(|root| root.line));
        assert_eq!(line(""), Ok(None));
        assert_eq!(line("# nothing\n"), Ok(None));
        assert_eq!(line("\u{feff}a: 1\n---\n- [broken"), Ok(Some(1)));
        assert_eq!(line("---\n\na: 1\n"), Ok(Some(3)));
    }

    #[test]
    fn deep_and_circular_texts_are_errors() {
        for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "a: &a [*a]".to_owned(), "a: *b".to_owned()]
        {
            assert!(parse(text.as_bytes()).is_err(), "{}", &text[..4]);
        }
    }

    #[test]
    fn no_text_causes_a_panic() {
        let error = parse(b"a: [!b,c]").expect_err("the library panics here");
        assert_eq!(error.to_string(), "yaml: unsupported syntax");
        let valid = "a: &x {b: [1, \"2\\n\", '3'], ? c : !!binary aGk=}\nd: |\n  text\ne: *x\n<<: *x\n";
        for at in 0..valid.len() {
            let _ = parse(&valid.as_bytes()[..at]);
            for byte in *b"\0\t\n:-[]{}\"'&*!|>%@?\xff" {
                let mut text = valid.as_bytes().to_vec();
                text[at] = byte;
                let _ = parse(&text);
            }
        }
    }
}
