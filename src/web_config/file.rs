//! The web configuration file as it is written: its keys and their types.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use super::yaml::{Content, Node, Scalar, YamlError, parse, shown};
use super::{CipherSuite, Curve, TlsVersion};
use crate::config::GoDuration;

/// The most values that a file may have, counting merged maps once for each time that they are merged.
const VALUES_MAX: usize = 1_000_000;

/// The content of a file, without any checks beyond the types.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FileContent {
    pub tls: TlsSection,
    pub http2: bool,
    pub headers: BTreeMap<String, String>,
    pub users: BTreeMap<String, String>,
    pub burst: i64,
    pub interval_nanoseconds: i64,
}

/// `tls_server_config`. Missing texts are empty.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TlsSection {
    pub cert: String,
    pub key: String,
    pub client_ca: String,
    pub cert_file: String,
    pub key_file: String,
    pub client_auth_type: String,
    pub client_ca_file: String,
    pub cipher_suites: Vec<CipherSuite>,
    pub curve_preferences: Vec<Curve>,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
    pub client_allowed_sans: Option<Vec<String>>,
}

impl FileContent {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// If it is not YAML, or has unknown or repeated keys, or values of the wrong type. Messages are those of Go, without values.
    pub(super) fn parse(text: &[u8]) -> Result<Self, YamlError> {
        let mut content = Self { http2: true, ..Self::default() };
        let Some(root) = parse(text)? else { return Ok(content) };
        let mut decoder = Decoder::default();
        decoder.section(&root, &ROOT, &mut content)?;
        if decoder.problems.is_empty() { Ok(content) } else { Err(YamlError::types(&decoder.problems)) }
    }
}

/// A map with known keys.
struct Section<T: 'static> {
    /// The name of its type in messages.
    name: &'static str,
    keys: &'static [(&'static str, Read<T>)],
    /// What an explicit `~` in its place means.
    clear: fn(&mut T),
}

type Read<T> = fn(&mut Decoder, &Node, &mut T) -> Result<(), YamlError>;

const ROOT: Section<FileContent> = Section {
    name: "web.Config",
    keys: &[
        ("tls_server_config", |decoder, node, content| decoder.section(node, &TLS, &mut content.tls)),
        ("http_server_config", |decoder, node, content| decoder.section(node, &HTTP, content)),
        ("rate_limit", |decoder, node, content| decoder.section(node, &RATE_LIMIT, content)),
        ("basic_auth_users", |decoder, node, content| {
            decoder.map(node, "map[string]config.Secret", "config.plain", &mut content.users)
        }),
    ],
    clear: |content| *content = FileContent::default(),
};

const TLS: Section<TlsSection> = Section {
    name: "web.TLSConfig",
    keys: &[
        ("cert", |decoder, node, tls| decoder.text(node, "string", &mut tls.cert)),
        ("key", |decoder, node, tls| decoder.text(node, "config.plain", &mut tls.key)),
        ("client_ca", |decoder, node, tls| decoder.text(node, "string", &mut tls.client_ca)),
        ("cert_file", |decoder, node, tls| decoder.text(node, "string", &mut tls.cert_file)),
        ("key_file", |decoder, node, tls| decoder.text(node, "string", &mut tls.key_file)),
        ("client_auth_type", |decoder, node, tls| decoder.text(node, "string", &mut tls.client_auth_type)),
        ("client_ca_file", |decoder, node, tls| decoder.text(node, "string", &mut tls.client_ca_file)),
        ("cipher_suites", |decoder, node, tls| {
            let words = decoder.list(node, "[]web.Cipher")?;
            tls.cipher_suites = known(&words.unwrap_or_default(), CipherSuite::from_name, "cipher")?;
            Ok(())
        }),
        ("curve_preferences", |decoder, node, tls| {
            let words = decoder.list(node, "[]web.Curve")?;
            tls.curve_preferences = known(&words.unwrap_or_default(), Curve::from_name, "curve")?;
            Ok(())
        }),
        ("min_version", |decoder, node, tls| decoder.version(node, &mut tls.min_version)),
        ("max_version", |decoder, node, tls| decoder.version(node, &mut tls.max_version)),
        // Accepted, because the official program accepts it, and without effect, as there.
        ("prefer_server_cipher_suites", |decoder, node, _| decoder.bool(node, &mut false)),
        ("client_allowed_sans", |decoder, node, tls| {
            tls.client_allowed_sans = decoder.list(node, "[]string")?;
            Ok(())
        }),
    ],
    clear: |tls| *tls = TlsSection::default(),
};

const HTTP: Section<FileContent> = Section {
    name: "web.HTTPConfig",
    keys: &[
        ("http2", |decoder, node, content| decoder.bool(node, &mut content.http2)),
        ("headers", |decoder, node, content| {
            decoder.map(node, "map[string]string", "string", &mut content.headers)
        }),
    ],
    clear: |content| {
        content.http2 = false;
        content.headers.clear();
    },
};

const RATE_LIMIT: Section<FileContent> = Section {
    name: "web.RateLimiterConfig",
    keys: &[
        ("burst", |decoder, node, content| decoder.int(node, &mut content.burst)),
        ("interval", |decoder, node, content| decoder.duration(node, &mut content.interval_nanoseconds)),
    ],
    clear: |content| (content.burst, content.interval_nanoseconds) = (0, 0),
};

/// The value of each word in a table of names.
fn known<T>(words: &[String], find: fn(&str) -> Option<T>, what: &str) -> Result<Vec<T>, YamlError> {
    words
        .iter()
        .map(|word| {
            find(word).ok_or_else(|| YamlError::bare(format!("unknown {what}: {}", shown(word, ' '))))
        })
        .collect()
}

/// Converts nodes into values. Values of the wrong type are gathered, and the rest of the file is still looked at, as in Go.
#[derive(Default)]
struct Decoder {
    problems: Vec<String>,
    values: usize,
}

impl Decoder {
    fn count(&mut self) -> Result<(), YamlError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(YamlError::new("document contains excessive aliasing"));
        }
        Ok(())
    }

    /// Notes that a value has the wrong type. The message shows the value where a secret makes no sense.
    fn mismatch(&mut self, node: &Node, expected: &str) {
        let mut found = node.type_name();
        if let (Content::Scalar { value, .. }, "bool" | "int" | "time.Duration") = (&node.content, expected) {
            // Cut as in Go.
            let value = if value.len() > 10 {
                format!("{}...", value.get(..7).unwrap_or_default())
            } else {
                value.clone()
            };
            found = format!("{found} {}", shown(&value, '`'));
        }
        self.problems.push(format!("line {}: cannot unmarshal {found} into {expected}", node.line));
    }

    fn section<T>(&mut self, node: &Node, section: &Section<T>, target: &mut T) -> Result<(), YamlError> {
        self.count()?;
        match &node.content {
            Content::Mapping(pairs) => self.keys(pairs, section, target),
            Content::Scalar { .. } if node.scalar()? == Some(Scalar::Null) => {
                (section.clear)(target);
                Ok(())
            }
            _ => {
                self.mismatch(node, section.name);
                Ok(())
            }
        }
    }

    fn keys<T>(
        &mut self,
        pairs: &[(Rc<Node>, Rc<Node>)],
        section: &Section<T>,
        target: &mut T,
    ) -> Result<(), YamlError> {
        let mut seen = Vec::new();
        for (key, value) in pairs {
            if key.is_merge() {
                for map in merged(value)? {
                    self.section(map, section, target)?;
                }
                continue;
            }
            let mut name = String::new();
            let problems = self.problems.len();
            self.text(key, "string", &mut name)?;
            if self.problems.len() > problems {
                continue;
            }
            let (line, of) = (key.line, section.name);
            match section.keys.iter().find(|(known, _)| *known == name) {
                None => self
                    .problems
                    .push(format!("line {line}: field {} not found in type {of}", shown(&name, ' '))),
                Some(_) if seen.contains(&name) => {
                    self.problems.push(format!("line {line}: field {name} already set in type {of}"));
                }
                Some((_, read)) => {
                    seen.push(name);
                    read(self, value, target)?;
                }
            }
        }
        Ok(())
    }

    /// A map with any keys. `of` is the type of the map, `item` that of its values.
    fn map(
        &mut self,
        node: &Node,
        of: &str,
        item: &str,
        target: &mut BTreeMap<String, String>,
    ) -> Result<(), YamlError> {
        self.count()?;
        let pairs = match &node.content {
            Content::Mapping(pairs) => pairs,
            Content::Scalar { .. } if node.scalar()? == Some(Scalar::Null) => {
                target.clear();
                return Ok(());
            }
            _ => {
                self.mismatch(node, of);
                return Ok(());
            }
        };
        for (key, value) in pairs {
            if key.is_merge() {
                for map in merged(value)? {
                    self.map(map, of, item, target)?;
                }
                continue;
            }
            let (mut name, mut text) = (String::new(), String::new());
            let problems = self.problems.len();
            self.text(key, "string", &mut name)?;
            if self.problems.len() == problems {
                self.text(value, item, &mut text)?;
            }
            if self.problems.len() > problems {
                continue;
            }
            match target.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(text);
                }
                Entry::Occupied(place) => {
                    let key = shown(place.key(), '"');
                    self.problems.push(format!("line {}: key {key} already set in map", value.line));
                }
            }
        }
        Ok(())
    }

    /// A list of texts; `None` if it is explicitly null.
    fn list(&mut self, node: &Node, of: &str) -> Result<Option<Vec<String>>, YamlError> {
        self.count()?;
        match &node.content {
            Content::Sequence(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    let mut text = String::new();
                    self.text(item, "string", &mut text)?;
                    texts.push(text);
                }
                Ok(Some(texts))
            }
            Content::Scalar { .. } if node.scalar()? == Some(Scalar::Null) => Ok(None),
            _ => {
                self.mismatch(node, of);
                Ok(Some(Vec::new()))
            }
        }
    }

    /// A text. Numbers and booleans count as they are written.
    fn text(&mut self, node: &Node, expected: &str, target: &mut String) -> Result<(), YamlError> {
        self.count()?;
        match (&node.content, node.scalar()?) {
            (_, Some(Scalar::Null)) => target.clear(),
            (_, Some(Scalar::Text(text))) => *target = text,
            (Content::Scalar { value, .. }, Some(_)) => target.clone_from(value),
            _ => self.mismatch(node, expected),
        }
        Ok(())
    }

    fn bool(&mut self, node: &Node, target: &mut bool) -> Result<(), YamlError> {
        match node.scalar()? {
            Some(Scalar::Bool(value)) => *target = value,
            Some(Scalar::Null) => *target = false,
            _ => self.mismatch(node, "bool"),
        }
        Ok(())
    }

    fn int(&mut self, node: &Node, target: &mut i64) -> Result<(), YamlError> {
        match node.scalar()?.as_ref().and_then(whole) {
            Some(number) => *target = number,
            None => self.mismatch(node, "int"),
        }
        Ok(())
    }

    /// A duration in nanoseconds. Plain numbers are nanoseconds.
    fn duration(&mut self, node: &Node, target: &mut i64) -> Result<(), YamlError> {
        let nanoseconds = match node.scalar()? {
            Some(Scalar::Text(text)) => GoDuration::parse_as_go(&text).ok().map(GoDuration::nanoseconds),
            other => other.as_ref().and_then(whole),
        };
        match nanoseconds {
            Some(nanoseconds) => *target = nanoseconds,
            None => self.mismatch(node, "time.Duration"),
        }
        Ok(())
    }

    fn version(&mut self, node: &Node, target: &mut Option<TlsVersion>) -> Result<(), YamlError> {
        let is_other_null =
            matches!(&node.content, Content::Scalar { value, .. } if value == "Null" || value == "NULL");
        // Go's library looks for null twice, and the first time not for all of its forms.
        if node.scalar()? == Some(Scalar::Null) && !is_other_null {
            *target = None;
            return Ok(());
        }
        let mut name = String::new();
        let problems = self.problems.len();
        self.text(node, "string", &mut name)?;
        if self.problems.len() == problems {
            let unknown = || YamlError::bare(format!("unknown TLS version: {}", shown(&name, ' ')));
            *target = Some(TlsVersion::from_name(&name).ok_or_else(unknown)?);
        }
        Ok(())
    }
}

/// A number without its fraction; null is 0. `None` for other types and for numbers beyond 63 bits.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is dropped on purpose")]
fn whole(scalar: &Scalar) -> Option<i64> {
    match scalar {
        Scalar::Null => Some(0),
        Scalar::Int(number) => Some(*number),
        Scalar::Float(number) if *number < i64::MAX as f64 => Some(*number as i64),
        _ => None,
    }
}

/// The maps behind `<<`, those with precedence last.
fn merged(node: &Node) -> Result<Vec<&Node>, YamlError> {
    let no_map = || YamlError::new("map merge requires map or sequence of maps as the value");
    match &node.content {
        Content::Mapping(_) => Ok(vec![node]),
        Content::Sequence(items) => {
            let maps = items.iter().rev().map(|item| match item.content {
                Content::Mapping(_) => Ok(&**item),
                _ => Err(no_map()),
            });
            maps.collect()
        }
        Content::Scalar { .. } => Err(no_map()),
    }
}

#[cfg(test)]
mod tests;
