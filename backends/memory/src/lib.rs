//! The engine that stores nothing. It numbers batches and discards them.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use sluicegate_engine::{
    Change, Durability, Engine, EngineError, Groups, Receipt, Restored, Sink, Stats, UnreadStore,
};

/// Discards every batch.
#[derive(Debug, Default)]
pub struct Memory {
    sequence: u64,
}

impl Memory {
    /// An empty store.
    pub fn open() -> UnreadStore {
        UnreadStore::new(Self::default())
    }
}

impl Engine for Memory {
    fn read(
        &mut self,
        _threads: NonZeroUsize,
        _sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        Ok(ControlFlow::Continue(Restored { sequence: self.sequence, closed: true, ..Restored::default() }))
    }

    fn commit(&mut self, _batch: &[Change<'_>], _durability: Durability) -> Result<Receipt, EngineError> {
        self.sequence += 1;
        Ok(Receipt { sequence: self.sequence })
    }

    fn start_anew(&mut self, _groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        self.commit(&[], Durability::Disk)
    }

    fn stats(&self) -> Stats {
        Stats { sequence: self.sequence, ..Stats::default() }
    }

    fn close(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}
