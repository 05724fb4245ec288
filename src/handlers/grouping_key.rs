//! Push paths → grouping keys.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::exposition::consistency::Inconsistency;
use crate::exposition::escape::{collision, unescape_values};
use crate::exposition::names::NameRules;
use crate::shard::key::GroupingKey;

/// What marks a value as base64, at the end of its label name.
const BASE64_SUFFIX: &str = "@base64";

/// Unpadded (padding is cut off before), and lenient about stray bits in the last character, as Go's decoder is.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Reads the grouping key from what follows `/metrics/job/` or `/metrics/job@base64/` in a decoded path.
///
/// # Errors
/// The text of a 400 answer.
pub fn grouping_key(
    rest: &str,
    job_is_base64: bool,
    raw_path: &str,
    rules: NameRules,
) -> Result<GroupingKey, String> {
    if percent_encoding::percent_decode_str(raw_path).decode_utf8().is_err() {
        return Err("the path is not valid UTF-8".to_owned());
    }
    let (job, labels) = rest.split_once('/').unwrap_or((rest, ""));
    let job = match job_is_base64 {
        true => decode_base64(job)
            .map_err(|reason| format!("invalid base64 encoding in job name {job:?}: {reason}"))?,
        false => job.to_owned(),
    };
    if job.is_empty() {
        return Err("job name is required".to_owned());
    }
    let mut pairs = read_pairs(labels, rules)?;
    // The first job wins over a label of that name.
    pairs.push(("job".to_owned(), job));
    let key = GroupingKey::new(pairs);
    // Both push times show these labels, whatever else the group holds: what no scrape could tell apart does not get in.
    if rules == NameRules::Utf8
        && let labels = key.labels()
        && let Some((name, other)) = collision(&labels.iter().map(|(name, _)| name.as_str()))
    {
        return Err(format!("improper label name {name:?}: {}", Inconsistency::escaped_names(name, other)));
    }
    Ok(key)
}

fn read_pairs(labels: &str, rules: NameRules) -> Result<Vec<(String, String)>, String> {
    if labels.is_empty() {
        return Ok(Vec::new());
    }
    let components: Vec<&str> = labels.split('/').collect();
    if !components.len().is_multiple_of(2) {
        return Err(format!("odd number of components in label string {labels:?}"));
    }
    let mut pairs = Vec::with_capacity(components.len() / 2 + 1);
    for pair in components.chunks_exact(2) {
        let (name, value) = (pair[0], pair[1]);
        let (name, value) = match name.strip_suffix(BASE64_SUFFIX) {
            None => (name, value.to_owned()),
            Some(name) => {
                let value = decode_base64(value).map_err(|reason| {
                    format!("invalid base64 encoding for label {name}={value:?}: {reason}")
                })?;
                (name, value)
            }
        };
        let unescaped = match rules {
            NameRules::Legacy => name.into(),
            NameRules::Utf8 => unescape_values(name),
        };
        if !rules.allow_label_name(&unescaped) || name.starts_with("__") || unescaped.starts_with("__") {
            return Err(format!("improper label name {name:?}"));
        }
        pairs.push((unescaped.into_owned(), value));
    }
    Ok(pairs)
}

/// Decodes a value by the URL-safe alphabet: any number of `=` at the end, CR and LF skipped.
fn decode_base64(text: &str) -> Result<String, String> {
    let mut text = text.trim_end_matches('=').to_owned();
    text.retain(|c| c != '\r' && c != '\n');
    let bytes = BASE64.decode(text).map_err(|problem| problem.to_string())?;
    String::from_utf8(bytes).map_err(|_| "the value is not valid UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(rest: &str) -> Result<String, String> {
        grouping_key(rest, false, rest, NameRules::Legacy).map(|key| key.text().to_string())
    }

    #[test]
    fn with_utf8_names_labels_are_decoded() {
        let key =
            |rest: &str| grouping_key(rest, false, rest, NameRules::Utf8).map(|key| key.text().to_string());
        assert_eq!(key("a/U__x_2e_y/1").as_deref(), Ok("job=\"a\",\"x.y\"=\"1\""));
        assert_eq!(key("a/U__x_2e_y@base64/MQ").as_deref(), Ok("job=\"a\",\"x.y\"=\"1\""));
        assert_eq!(key("a/x.y/1"), key("a/U__x_2e_y/1"));
        assert_eq!(key("a/U__x_2e/1").as_deref(), Ok("U__x_2e=\"1\",job=\"a\""), "is no such spelling");
        for reserved in ["__x", "U______x", "U___2e__2e_name_2e__2e_", "U__", "..name.."] {
            assert!(key(&format!("a/{reserved}/1")).is_err(), "{reserved}");
        }
        assert!(key("a/x.y/1/x_y/1").is_err(), "become one");
    }

    #[test]
    fn a_slash_after_the_job_changes_nothing() {
        assert_eq!(key("a"), key("a/"));
        assert_eq!(key("a").as_deref(), Ok("job=\"a\""));
    }

    #[test]
    fn a_slash_after_a_name_is_the_empty_value_and_after_a_pair_is_odd() {
        assert_eq!(key("a/zone/").as_deref(), Ok("job=\"a\",zone=\"\""));
        assert!(key("a/zone/eu/").is_err());
        assert!(key("a/zone").is_err());
    }

    #[test]
    fn an_empty_job_is_refused() {
        assert_eq!(key("/"), Err("job name is required".to_owned()));
        assert_eq!(grouping_key("=", true, "=", NameRules::Legacy), Err("job name is required".to_owned()));
    }

    #[test]
    fn the_later_label_wins_and_the_first_job() {
        assert_eq!(key("a/zone/one/zone@base64/dHdv").as_deref(), Ok("job=\"a\",zone=\"two\""));
        assert_eq!(key("a/job/b").as_deref(), Ok("job=\"a\""));
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        for (text, value) in
            [("YQ", "a"), ("YQ==", "a"), ("YQ=====", "a"), ("Y\r\nQ", "a"), ("YR", "a"), ("=", "")]
        {
            assert_eq!(decode_base64(text).as_deref(), Ok(value), "{text}");
        }
        for text in ["Z", "YW+i", "Y Q", "Y=Q", "!!!!", "_w"] {
            assert!(decode_base64(text).is_err(), "{text}");
        }
        assert!(key("a/x@BASE64/YQ").is_err(), "the suffix is in lower case");
    }

    #[test]
    fn reserved_and_odd_names_are_refused() {
        for name in ["__meta", "__meta@base64", "1zone", "my-zone", "my:zone", "zöne", "@base64", ""] {
            assert!(key(&format!("a/{name}/YQ")).is_err(), "{name}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert!(grouping_key("a/x/\u{fffd}", false, "/metrics/job/a/x/%ff", NameRules::Utf8).is_err());
    }
}
