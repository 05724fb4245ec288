//! Unix seconds as RFC 3339, in UTC.

use jiff::Timestamp;

/// `2024-11-01T10:00:00.123456789Z`, without trailing zeros in the fraction, as Go prints times in JSON.
pub(super) fn rfc3339(seconds: f64) -> String {
    // Converted separately: seconds times 1e9 would be rounded to 256 ns.
    let whole = seconds.floor();
    let nanoseconds = whole as i128 * 1_000_000_000 + ((seconds - whole) * 1e9).round() as i128;
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_known_times() {
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400.5), "2000-02-29T00:00:00.5Z");
        assert_eq!(rfc3339(1_700_000_000.25), "2023-11-14T22:13:20.25Z");
    }
}
