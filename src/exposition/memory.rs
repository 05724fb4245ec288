//! How code without state reports the memory it is about to use.

/// Memory that something may use. It grows with what is made, so that a limit can end the work early.
pub trait Memory {
    /// Reserves bytes beyond those reserved before.
    ///
    /// # Errors
    /// The bytes do not fit. Nothing is reserved then, and the work must end.
    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory>;
}

/// The memory for requests is used up. Another attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much memory is in use by requests, try again")]
pub struct OutOfMemory;

/// Memory without a limit, for work whose size is limited otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Memory for Unlimited {
    fn grow(&mut self, _: usize) -> Result<(), OutOfMemory> {
        Ok(())
    }
}
