//! The engine that keeps nothing: a gateway without a path. It numbers batches and forgets them, so that the server needs
//! no second way of writing.

use std::num::NonZeroUsize;

use sluicegate_engine::{Change, Commit, Durability, Engine, EngineError, Receipt, Restored, Sink, Stats};

/// Forgets every batch.
#[derive(Debug, Default)]
pub struct Memory {
    sequence: u64,
    restored: bool,
}

impl Memory {
    /// An engine that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for Memory {
    fn restore(&mut self, _: NonZeroUsize, _: Sink<'_>) -> Result<Restored, EngineError> {
        self.restored = true;
        Ok(Restored { sequence: self.sequence, closed: true, ..Restored::default() })
    }

    fn commit(&mut self, _: &[Change<'_>], _: Durability) -> Result<Commit, EngineError> {
        if !self.restored {
            return Err(EngineError::NotRestored);
        }
        self.sequence += 1;
        Ok(Commit::Kept(Receipt { sequence: self.sequence }))
    }

    fn stats(&self) -> Stats {
        Stats { sequence: self.sequence, ..Stats::default() }
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}
