//! How code without state reports the memory it is about to use.

/// Memory that something may use. It grows with what is made, so that a limit can end the work early.
pub trait Memory {
    /// Reserves bytes beyond those reserved before.
    ///
    /// # Errors
    /// The bytes do not fit. Nothing is reserved then, and the work must end.
    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory>;
}

/// Memory for work whose result may lose its purpose: then nothing more fits, so that the work ends early.
pub struct WhileWanted<'a> {
    /// The memory as long as the result is wanted.
    pub memory: &'a mut dyn Memory,
    /// Whether somebody still waits for the result.
    pub is_wanted: &'a dyn Fn() -> bool,
}

impl Memory for WhileWanted<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        if (self.is_wanted)() { self.memory.grow(bytes) } else { Err(OutOfMemory::InUse) }
    }
}

/// Why memory was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfMemory {
    /// Other requests use it. Another attempt may succeed.
    #[error("too much memory is in use by requests, try again")]
    InUse,
    /// The request would not fit even if it were the only one.
    #[error(
        "the request needs more memory than --memory.in-flight-max allows one request: {bytes_max} bytes"
    )]
    NeverFits {
        /// What one request may have.
        bytes_max: usize,
    },
}

/// Memory without a limit, for work whose size is limited otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Memory for Unlimited {
    fn grow(&mut self, _: usize) -> Result<(), OutOfMemory> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::exposition::names::NameRules;
    use crate::exposition::text::{ParseError, parse_within};

    #[test]
    fn work_ends_early_when_nobody_wants_its_result() {
        let asked = Cell::new(0);
        let is_wanted = || asked.replace(asked.get() + 1) < 3;
        let body: String = (0..100_000).map(|number| format!("m{number} 1\n")).collect();
        let mut memory = WhileWanted { memory: &mut Unlimited, is_wanted: &is_wanted };
        let result = parse_within(body.as_bytes(), NameRules::Utf8, &mut memory);
        assert!(matches!(result, Err(ParseError::OutOfMemory(_))));
        assert_eq!(asked.get(), 4, "it ends at once");
    }
}
