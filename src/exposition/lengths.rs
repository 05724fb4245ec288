//! How long the names and texts of a push may be.
//!
//! They travel on through the registry, errors, escaping and every scrape, each of which handles a name or a text as a whole.

/// Limits on the length of each name and text.
#[derive(Debug, Clone, Copy)]
pub struct LengthLimits {
    /// Bytes of the name of a metric or label.
    name_bytes_max: usize,
    /// Bytes of a label value, HELP or unit.
    text_bytes_max: usize,
}

/// A name or a text is longer than its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} longer than {bytes_max} bytes")]
pub struct TooLong {
    what: &'static str,
    bytes_max: usize,
}

impl LengthLimits {
    /// The limits for what clients send: far more than any known client does.
    pub const PUSH: Self = Self { name_bytes_max: 64 << 10, text_bytes_max: 1 << 20 };
    /// No limits, for what the gateway wrote itself. It adds suffixes to names, and may have restored longer ones.
    pub const NONE: Self = Self { name_bytes_max: usize::MAX, text_bytes_max: usize::MAX };
    /// Limits that short bodies can exceed.
    #[cfg(test)]
    pub(super) const TINY: Self = Self { name_bytes_max: 5, text_bytes_max: 4 };

    /// Whether a name of this length is allowed.
    #[inline]
    pub(super) fn allow_name(&self, bytes: usize) -> bool {
        bytes <= self.name_bytes_max
    }

    /// Checks the name of a metric or label; `what` says which, for the error.
    ///
    /// # Errors
    /// It is too long.
    #[inline]
    pub(super) fn check_name(&self, what: &'static str, bytes: usize) -> Result<(), TooLong> {
        if bytes <= self.name_bytes_max {
            Ok(())
        } else {
            Err(TooLong { what, bytes_max: self.name_bytes_max })
        }
    }

    /// Checks another text.
    ///
    /// # Errors
    /// It is too long.
    #[inline]
    pub(super) fn check_text(&self, what: &'static str, bytes: usize) -> Result<(), TooLong> {
        if bytes <= self.text_bytes_max {
            Ok(())
        } else {
            Err(TooLong { what, bytes_max: self.text_bytes_max })
        }
    }
}
