//! From the path of a push to its grouping key.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use smallvec::SmallVec;

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{collision, unescape_values};
use crate::exposition::names::NameRules;
use crate::exposition::quote::quote;
use crate::shard::key::GroupingKey;

/// The suffix of a label name whose value is base64.
const BASE64_SUFFIX: &[u8] = b"@base64";

/// Padding is removed before decoding. Stray bits in the last character are ignored, as by Go's decoder.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The part of a path that names a group.
#[derive(Debug, Clone, Copy)]
pub struct GroupPath<'a> {
    /// What follows `/metrics/job/` or `/metrics/job@base64/`, decoded. It may be any bytes.
    pub tail: &'a [u8],
    /// Whether the job is encoded in base64.
    pub job_is_base64: bool,
}

/// Why a path does not name a group. The texts are those of the official program where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupingKeyError {
    /// The job is not valid base64. The official text shows what could be decoded.
    #[error("invalid base64 encoding in job name {}: {reason}", quote(.decoded))]
    JobBase64 {
        /// What precedes the error.
        decoded: Vec<u8>,
        /// The decoder's reason.
        reason: Base64Error,
    },
    /// A label without a value, or a value without a label.
    #[error("odd number of components in label string {}", quote(.0))]
    OddComponents(Vec<u8>),
    /// The label name is invalid or reserved.
    #[error("improper label name {}", quote(.0))]
    LabelName(Vec<u8>),
    /// The value of a label is not valid base64.
    #[error("invalid base64 encoding for label {name}={}: {reason}", quote(.value))]
    LabelBase64 {
        /// The label.
        name: String,
        /// Its value as sent.
        value: Vec<u8>,
        /// The decoder's reason.
        reason: Base64Error,
    },
    /// The job is empty.
    #[error("job name is required")]
    NoJob,
    /// A group that this program never has, although the official one accepts the path.
    #[error(transparent)]
    NeverExists(#[from] ImpossibleGroup),
}

/// Why there is no group with a grouping key that the official program accepts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImpossibleGroup {
    /// A value that is not UTF-8.
    #[error("the value of label {name:?} is not valid UTF-8: {}", quote(.value))]
    NotUtf8 {
        /// The label.
        name: String,
        /// Its value.
        value: Vec<u8>,
    },
    /// A label name that is reserved after `U__` has been decoded.
    #[error("improper label name {0:?}: it is reserved after decoding")]
    ReservedName(String),
    /// A label name that collides with another one after escaping.
    #[error("improper label name {name:?}: {reason}")]
    Collision {
        /// The label.
        name: String,
        /// Which names collide.
        reason: Inconsistency,
    },
}

/// The position of the byte, without padding, from which on a value is not valid base64. The text is that of Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub struct Base64Error(usize);

/// Reads the grouping key from a path. Errors come in the official order.
///
/// # Errors
/// See [`GroupingKeyError`]. The response is 400, except that a group that never exists can be deleted.
pub fn grouping_key(path: &GroupPath<'_>, rules: NameRules) -> Result<GroupingKey, GroupingKeyError> {
    match plain_key(path) {
        Some(key) => Ok(key),
        None => any_key(path, rules),
    }
}

/// The key of nearly all paths, for a fraction of the time: values are printable ASCII, names are plain, and nothing is encoded, escaped or
/// repeated. `None` for any other path.
fn plain_key(path: &GroupPath<'_>) -> Option<GroupingKey> {
    const LABELS_MAX: usize = 16;
    /// A longer text needs another allocation.
    const TEXT_BYTES: usize = 256;
    let is_plain_value =
        |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    let is_plain_name = |name: &[u8]| {
        name.first().is_some_and(u8::is_ascii_alphabetic)
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            // The start of an escaped name.
            && !name.starts_with(b"U_")
    };
    if path.job_is_base64 {
        return None;
    }
    let tail = str::from_utf8(path.tail).ok()?;
    let mut components = tail.split('/');
    let mut labels: SmallVec<[(&str, &str); LABELS_MAX]> = SmallVec::new();
    labels.push(("job", components.next().filter(|job| !job.is_empty())?));
    while let Some(name) = components.next() {
        // Not after a slash at the end.
        let value = components.next()?;
        if labels.len() == LABELS_MAX || !is_plain_name(name.as_bytes()) {
            return None;
        }
        labels.push((name, value));
    }
    labels.sort_unstable();
    let is_repeated = labels.windows(2).any(|pair| pair[0].0 == pair[1].0);
    let is_plain = labels.iter().all(|(_, value)| is_plain_value(value.as_bytes()));
    if !is_plain || is_repeated {
        return None;
    }
    let mut text: SmallVec<[u8; TEXT_BYTES]> = SmallVec::new();
    for (name, value) in labels {
        let separator: &[u8] = if text.is_empty() { b"" } else { b"," };
        for part in [separator, name.as_bytes(), b"=\"", value.as_bytes(), b"\""] {
            text.extend_from_slice(part);
        }
    }
    Some(GroupingKey::from_text(str::from_utf8(&text).ok()?.into()))
}

fn any_key(path: &GroupPath<'_>, rules: NameRules) -> Result<GroupingKey, GroupingKeyError> {
    let job_end = memchr::memchr(b'/', path.tail).unwrap_or(path.tail.len());
    let (job, labels) = path.tail.split_at(job_end);
    let job = if path.job_is_base64 {
        decode_base64(job)
            .map_err(|(decoded, reason)| GroupingKeyError::JobBase64 { decoded, reason })?
            .into()
    } else {
        Cow::Borrowed(job)
    };
    let mut pairs = read_pairs(labels, rules)?;
    if job.is_empty() {
        return Err(GroupingKeyError::NoJob);
    }
    // The job of the path wins over a label with the name `job`.
    pairs.push((Cow::Borrowed("job"), job));
    let key = GroupingKey::new(in_force(&pairs)?);
    // Every group has push times with these labels, even if it has no metrics. So names that scrapers could not distinguish are
    // rejected here.
    if rules == NameRules::Utf8
        && let labels = key.labels()
        && let Some((name, other)) = collision(&labels.iter().map(|(name, _)| name.as_str()))
    {
        let reason = Inconsistency::escaped_names(name, other);
        return Err(ImpossibleGroup::Collision { name: name.to_owned(), reason }.into());
    }
    Ok(key)
}

/// A label name with its decoded value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Reads labels, with the slash before them.
fn read_pairs(labels: &[u8], rules: NameRules) -> Result<Vec<Pair<'_>>, GroupingKeyError> {
    let Some(labels_after_slash) = labels.strip_prefix(b"/").filter(|labels| !labels.is_empty()) else {
        return Ok(Vec::new());
    };
    let components: Vec<&[u8]> = labels_after_slash.split(|&byte| byte == b'/').collect();
    let (components, []) = components.as_chunks::<2>() else {
        return Err(GroupingKeyError::OddComponents(labels.to_owned()));
    };
    let mut pairs = Vec::with_capacity(components.len() + 1);
    for &[name, value] in components {
        let base64_name = name.strip_suffix(BASE64_SUFFIX);
        let raw_name = base64_name.unwrap_or(name);
        let improper = || GroupingKeyError::LabelName(raw_name.to_owned());
        let text = str::from_utf8(raw_name).map_err(|_| improper())?;
        let name = match rules {
            NameRules::Legacy => Cow::Borrowed(text),
            NameRules::Utf8 => unescape_values(text),
        };
        if !rules.allow_label_name(&name) || text.starts_with("__") {
            return Err(improper());
        }
        let value = match base64_name {
            None => Cow::Borrowed(value),
            Some(_) => {
                let decoded = decode_base64(value).map_err(|(_, reason)| GroupingKeyError::LabelBase64 {
                    name: text.to_owned(),
                    value: value.to_owned(),
                    reason,
                })?;
                Cow::Owned(decoded)
            }
        };
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The pairs that count, because no later one has their name. Only these must be UTF-8.
fn in_force(pairs: &[Pair<'_>]) -> Result<Vec<(String, String)>, ImpossibleGroup> {
    let mut labels = Vec::with_capacity(pairs.len());
    for (index, (name, value)) in pairs.iter().enumerate() {
        if name.starts_with("__") {
            return Err(ImpossibleGroup::ReservedName(name.to_string()));
        }
        match str::from_utf8(value) {
            Ok(value) => labels.push((name.to_string(), value.to_owned())),
            // Looked at only in this rare case, because it takes long if there are many labels.
            Err(_) if pairs[index + 1..].iter().any(|(later, _)| later == name) => {}
            Err(_) => {
                return Err(ImpossibleGroup::NotUtf8 { name: name.to_string(), value: value.to_vec() });
            }
        }
    }
    Ok(labels)
}

/// Decodes a value with the URL-safe alphabet. Any number of `=` at the end is accepted; CR and LF are skipped. An error comes with what
/// Go decodes before it: whole groups of four characters.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, (Vec<u8>, Base64Error)> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let text = &text[..text.len() - padding];
    let is_skipped = |byte: u8| matches!(byte, b'\r' | b'\n');
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || is_skipped(byte);
    let end = text.iter().position(|byte| !is_valid(*byte));
    let mut characters = text[..end.unwrap_or(text.len())].to_owned();
    characters.retain(|byte| !is_skipped(*byte));
    let error_at = end.or_else(|| (characters.len() % 4 == 1).then(|| text.len() - 1));
    if error_at.is_some() {
        characters.truncate(characters.len() / 4 * 4);
    }
    let decoded = BASE64.decode(characters).expect("only characters of the alphabet, and not one too many");
    match error_at {
        None => Ok(decoded),
        Some(at) => Err((decoded, Base64Error(at))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key_with(tail: &str, rules: NameRules) -> Result<String, GroupingKeyError> {
        let path = GroupPath { tail: tail.as_bytes(), job_is_base64: false };
        grouping_key(&path, rules).map(|key| key.text().to_string())
    }

    fn key(tail: &str) -> Result<String, GroupingKeyError> {
        key_with(tail, NameRules::Legacy)
    }

    #[test]
    fn decodes_label_names_with_utf8_names() {
        let key = |tail: &str| key_with(tail, NameRules::Utf8);
        assert_eq!(key("a/U__x_2e_y/1").as_deref(), Ok("job=\"a\",\"x.y\"=\"1\""));
        assert_eq!(key("a/U__x_2e_y@base64/MQ").as_deref(), Ok("job=\"a\",\"x.y\"=\"1\""));
        assert_eq!(key("a/x.y/1"), key("a/U__x_2e_y/1"));
        assert_eq!(
            key("a/U__x_2e/1").as_deref(),
            Ok("U__x_2e=\"1\",job=\"a\""),
            "not a valid escape sequence"
        );
        for reserved in ["__x", "U______x", "U___2e__2e_name_2e__2e_", "U__", "..name.."] {
            assert!(key(&format!("a/{reserved}/1")).is_err(), "{reserved}");
        }
        assert!(key("a/x.y/1/x_y/1").is_err(), "the names collide");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn plain_paths_are_read_as_any_other(
            parts in prop::collection::vec("[abU_1.@ \"\\\\é]{0,3}|job|instance|U__a|__a|a@base64|Y", 1..8),
            job_is_base64 in any::<bool>(),
        ) {
            let tail = parts.join("/");
            let path = GroupPath { tail: tail.as_bytes(), job_is_base64 };
            if let Some(key) = plain_key(&path) {
                for rules in [NameRules::Legacy, NameRules::Utf8] {
                    prop_assert_eq!(any_key(&path, rules), Ok(key.clone()));
                }
            }
        }
    }

    #[test]
    fn usual_paths_are_plain() {
        for tail in ["a", "a/instance/host-1:9090", "a b/zone/eu/instance/", "a/x_1/é".trim_end_matches("é")]
        {
            assert!(
                plain_key(&GroupPath { tail: tail.as_bytes(), job_is_base64: false }).is_some(),
                "{tail}"
            );
        }
    }

    #[test]
    fn a_slash_after_the_job_changes_nothing() {
        assert_eq!(key("a"), key("a/"));
        assert_eq!(key("a").as_deref(), Ok("job=\"a\""));
    }

    #[test]
    fn a_trailing_slash_means_an_empty_value_after_a_name_and_is_an_error_after_a_value() {
        assert_eq!(key("a/zone/").as_deref(), Ok("job=\"a\",zone=\"\""));
        assert!(key("a/zone/eu/").is_err());
        assert!(key("a/zone").is_err());
    }

    #[test]
    fn rejects_an_empty_job() {
        assert_eq!(key("/"), Err(GroupingKeyError::NoJob));
        let path = GroupPath { tail: b"=", job_is_base64: true };
        assert_eq!(grouping_key(&path, NameRules::Legacy), Err(GroupingKeyError::NoJob));
    }

    #[test]
    fn the_last_value_of_a_label_wins_but_the_job_is_always_the_first() {
        assert_eq!(key("a/zone/one/zone@base64/dHdv").as_deref(), Ok("job=\"a\",zone=\"two\""));
        assert_eq!(key("a/job/b").as_deref(), Ok("job=\"a\""));
    }

    #[test]
    fn decodes_base64_as_go_does() {
        for (text, value) in
            [("YQ", "a"), ("YQ==", "a"), ("YQ=====", "a"), ("Y\r\nQ", "a"), ("YR", "a"), ("=", "")]
        {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Ok(value.as_bytes()), "{text}");
        }
        for (text, at, decoded) in [
            ("Z", 0, ""),
            ("YW+i", 2, ""),
            ("Y Q", 1, ""),
            ("Y=Q", 1, ""),
            ("!!!!", 0, ""),
            ("YWJjY", 4, "abc"),
            ("YW\nJjY\n", 6, "abc"),
            ("YWJjYWI!", 7, "abc"),
        ] {
            let error = (decoded.as_bytes().to_vec(), Base64Error(at));
            assert_eq!(decode_base64(text.as_bytes()), Err(error), "{text}");
        }
        assert!(key("a/x@BASE64/YQ").is_err(), "the suffix is case-sensitive");
    }

    #[test]
    fn rejects_reserved_and_invalid_names() {
        for name in ["__meta", "__meta@base64", "1zone", "my-zone", "my:zone", "zöne", "@base64", ""] {
            assert!(key(&format!("a/{name}/YQ")).is_err(), "{name}");
        }
    }

    #[test]
    fn only_values_that_count_must_be_utf8() {
        let key = |tail: &[u8]| grouping_key(&GroupPath { tail, job_is_base64: false }, NameRules::Legacy);
        for tail in [&b"a/x/\xff"[..], b"\xff", b"a/x@base64/_w", b"a/x/1/x/\xff"] {
            let error = key(tail).expect_err("not UTF-8");
            assert!(
                matches!(error, GroupingKeyError::NeverExists(ImpossibleGroup::NotUtf8 { .. })),
                "{error}"
            );
        }
        for tail in [&b"a/job/\xff"[..], b"a/x/\xff/x/1", b"a/x@base64/_w/x/1"] {
            assert!(key(tail).is_ok(), "{tail:?}");
        }
        assert_eq!(key(b"a/\xff/1"), Err(GroupingKeyError::LabelName(b"\xff".to_vec())));
    }

    /// Scripts match on these.
    #[test]
    fn errors_have_the_official_text_and_order() {
        for (tail, text) in [
            ("/x", r#"odd number of components in label string "/x""#),
            ("a/zone/eu/", r#"odd number of components in label string "/zone/eu/""#),
            ("/1x/y", r#"improper label name "1x""#),
            ("a/1x@base64/!", r#"improper label name "1x""#),
            (
                "/x@base64/Y!",
                r#"invalid base64 encoding for label x="Y!": illegal base64 data at input byte 1"#,
            ),
            ("/", "job name is required"),
        ] {
            assert_eq!(key(tail).expect_err("an error").to_string(), text, "{tail}");
        }
        let path = GroupPath { tail: b"YWJj!/odd", job_is_base64: true };
        let text = r#"invalid base64 encoding in job name "abc": illegal base64 data at input byte 4"#;
        assert_eq!(grouping_key(&path, NameRules::Legacy).expect_err("an error").to_string(), text);
    }
}
