//! How code without state reports the memory it is about to use.

/// Memory that something may use. It grows with what is made, so that a limit can end the work early.
pub trait Memory {
    /// Reserves bytes beyond those reserved before.
    ///
    /// # Errors
    /// The bytes do not fit. Nothing is reserved then, and the work must end.
    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory>;
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
