//! From the path of a push to its grouping key.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{collision, unescape_values};
use crate::exposition::names::NameRules;
use crate::shard::key::GroupingKey;

/// The suffix of a label name whose value is base64.
const BASE64_SUFFIX: &str = "@base64";

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
    /// What follows `/metrics/job/` or `/metrics/job@base64/`, decoded.
    pub tail: &'a str,
    /// Whether the job is encoded in base64.
    pub job_is_base64: bool,
    /// The whole path as sent.
    pub raw_path: &'a str,
}

/// Why a path does not name a group. The texts are those of the official program where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupingKeyError {
    /// A byte that is not UTF-8.
    #[error("the path is not valid UTF-8")]
    NotUtf8,
    /// The job is not valid base64.
    #[error("invalid base64 encoding in job name {job:?}: {reason}")]
    JobBase64 {
        /// The job as sent.
        job: String,
        /// The decoder's reason.
        reason: Base64Error,
    },
    /// The job is empty.
    #[error("job name is required")]
    NoJob,
    /// A label without a value, or a value without a label.
    #[error("odd number of components in label string {0:?}")]
    OddComponents(String),
    /// The value of a label is not valid base64.
    #[error("invalid base64 encoding for label {name}={value:?}: {reason}")]
    LabelBase64 {
        /// The label.
        name: String,
        /// Its value as sent.
        value: String,
        /// The decoder's reason.
        reason: Base64Error,
    },
    /// The label name is invalid or reserved.
    #[error("improper label name {0:?}")]
    LabelName(String),
    /// A label name that collides with another one after escaping.
    #[error("improper label name {name:?}: {reason}")]
    Collision {
        /// The label.
        name: String,
        /// Which names collide.
        reason: Inconsistency,
    },
}

/// Why a value is not valid base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Base64Error {
    /// It does not use the URL-safe alphabet.
    #[error(transparent)]
    Alphabet(#[from] base64::DecodeError),
    /// The decoded value is not UTF-8.
    #[error("the value is not valid UTF-8")]
    NotUtf8,
}

/// Reads the grouping key from a path.
///
/// # Errors
/// See [`GroupingKeyError`]; the response is 400.
pub fn grouping_key(path: &GroupPath<'_>, rules: NameRules) -> Result<GroupingKey, GroupingKeyError> {
    if percent_encoding::percent_decode_str(path.raw_path).decode_utf8().is_err() {
        return Err(GroupingKeyError::NotUtf8);
    }
    let (job, labels) = path.tail.split_once('/').unwrap_or((path.tail, ""));
    let job = if path.job_is_base64 {
        decode_base64(job).map_err(|reason| GroupingKeyError::JobBase64 { job: job.to_owned(), reason })?
    } else {
        job.to_owned()
    };
    if job.is_empty() {
        return Err(GroupingKeyError::NoJob);
    }
    let mut pairs = read_pairs(labels, rules)?;
    // The job of the path wins over a label with the name `job`.
    pairs.push(("job".to_owned(), job));
    let key = GroupingKey::new(pairs);
    // Every group has push times with these labels, even if it has no metrics. So names that scrapers could not distinguish are
    // rejected here.
    if rules == NameRules::Utf8
        && let labels = key.labels()
        && let Some((name, other)) = collision(&labels.iter().map(|(name, _)| name.as_str()))
    {
        let reason = Inconsistency::escaped_names(name, other);
        return Err(GroupingKeyError::Collision { name: name.to_owned(), reason });
    }
    Ok(key)
}

fn read_pairs(labels: &str, rules: NameRules) -> Result<Vec<(String, String)>, GroupingKeyError> {
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    let components: Vec<&str> = labels.split('/').collect();
    if !components.len().is_multiple_of(2) {
        return Err(GroupingKeyError::OddComponents(labels.to_owned()));
    }
    let mut pairs = Vec::with_capacity(components.len() / 2 + 1);
    for pair in components.chunks_exact(2) {
        let (name, value) = (pair[0], pair[1]);
        let (name, value) = match name.strip_suffix(BASE64_SUFFIX) {
            None => (name, value.to_owned()),
            Some(name) => {
                let decoded = decode_base64(value).map_err(|reason| GroupingKeyError::LabelBase64 {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    reason,
                })?;
                (name, decoded)
            }
        };
        let unescaped = match rules {
            NameRules::Legacy => name.into(),
            NameRules::Utf8 => unescape_values(name),
        };
        if !rules.allow_label_name(&unescaped) || name.starts_with("__") || unescaped.starts_with("__") {
            return Err(GroupingKeyError::LabelName(name.to_owned()));
        }
        pairs.push((unescaped.into_owned(), value));
    }
    Ok(pairs)
}

/// Decodes a value with the URL-safe alphabet. Any number of `=` at the end is accepted; CR and LF are skipped.
fn decode_base64(text: &str) -> Result<String, Base64Error> {
    let mut text = text.trim_end_matches('=').to_owned();
    text.retain(|c| c != '\r' && c != '\n');
    String::from_utf8(BASE64.decode(text)?).map_err(|_| Base64Error::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_with(tail: &str, rules: NameRules) -> Result<String, GroupingKeyError> {
        let path = GroupPath { tail, job_is_base64: false, raw_path: tail };
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
        let path = GroupPath { tail: "=", job_is_base64: true, raw_path: "=" };
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
            assert_eq!(decode_base64(text).as_deref(), Ok(value), "{text}");
        }
        for text in ["Z", "YW+i", "Y Q", "Y=Q", "!!!!", "_w"] {
            assert!(decode_base64(text).is_err(), "{text}");
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
    fn rejects_paths_that_are_not_utf8() {
        let path = GroupPath { tail: "a/x/\u{fffd}", job_is_base64: false, raw_path: "/metrics/job/a/x/%ff" };
        assert_eq!(grouping_key(&path, NameRules::Utf8), Err(GroupingKeyError::NotUtf8));
    }
}
