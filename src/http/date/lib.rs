//! The `Date` header of HTTP responses, for every clock.
//!
//! hyper formats the date by the crate httpdate, at each turn of a connection, and cannot be told not to. That crate panics if the clock
//! is before 1970 or after 9999, which would end the gateway. This crate takes its place and has what hyper uses.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// A time that is displayed as in HTTP headers, such as `Sun, 06 Nov 1994 08:49:37 GMT`: always 29 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpDate(Timestamp);

impl From<SystemTime> for HttpDate {
    /// A time before 1970 becomes its beginning, a time after 9999 its end.
    fn from(time: SystemTime) -> Self {
        Self(Timestamp::try_from(time.max(UNIX_EPOCH)).unwrap_or(Timestamp::MAX))
    }
}

impl fmt::Display for HttpDate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.0);
        out.write_str(&date.map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    #[test]
    fn dates_are_those_of_http() {
        let date = HttpDate::from(UNIX_EPOCH + Duration::new(784_111_777, 999_999_999));
        assert_eq!(date.to_string(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn every_clock_has_a_date_of_29_bytes() {
        assert_eq!(HttpDate::from(UNIX_EPOCH - YEAR).to_string(), "Thu, 01 Jan 1970 00:00:00 GMT");
        for years in [0, 1, 54, 55, 130, 1000, 8029, 8031, 100_000] {
            let date = HttpDate::from(UNIX_EPOCH + years * YEAR).to_string();
            assert_eq!(date.len(), 29, "{date}");
        }
    }
}
