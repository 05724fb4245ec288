//! Unix seconds as text.

use jiff::Timestamp;

use crate::config::GoDuration;

/// `2024-11-01T10:00:00.123456789Z`, without trailing zeros in the fraction, as Go prints times in JSON.
pub(super) fn rfc3339(seconds: f64) -> String {
    // Converted separately: seconds times 1e9 would be rounded to 256 ns.
    let whole = seconds.floor();
    let nanoseconds = whole as i128 * 1_000_000_000 + ((seconds - whole) * 1e9).round() as i128;
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Reads a time: in RFC 3339, in Unix seconds, or as an age before `now` such as `7d`. Returns Unix seconds.
pub(super) fn read_time(text: &str, now: f64) -> Option<f64> {
    let seconds = |text: &str| text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let age = |text: &str| {
        let age = text.parse::<GoDuration>().ok()?.non_negative()?;
        Some(now - age.as_secs_f64())
    };
    let rfc3339 = |text: &str| Some(text.parse::<Timestamp>().ok()?.as_duration().as_secs_f64());
    seconds(text).or_else(|| age(text)).or_else(|| rfc3339(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_and_ages() {
        let read = |text| read_time(text, 1_000_000.0);
        assert_eq!(read("1700000000.5"), Some(1_700_000_000.5));
        assert_eq!(read("2023-11-14T22:13:20.25Z"), Some(1_700_000_000.25));
        assert_eq!(read("2023-11-14T23:13:20+01:00"), Some(1_700_000_000.0));
        assert_eq!(read("7d"), Some(1_000_000.0 - 7.0 * 86_400.0));
        assert_eq!(read("1h30m"), Some(1_000_000.0 - 5_400.0));
        for invalid in ["", "-1h", "NaN", "inf", "yesterday", "2023-11-14"] {
            assert_eq!(read(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn formats_known_times() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400.5), "2000-02-29T00:00:00.5Z");
        assert_eq!(rfc3339(1_700_000_000.25), "2023-11-14T22:13:20.25Z");
    }
}
