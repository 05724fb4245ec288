//! A store before it was read.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use crate::{Engine, EngineError, Restored, Stats};

/// An open store that was not read yet. Reading it completely gives the engine, which can commit.
///
/// A batch that is committed to a store before it was read could overwrite damage, or records that the program does not know.
/// This type makes that a compile error. It wraps the engine, instead of being a second trait, so that an engine is one type
/// with one `dyn` trait, and no engine checks at run time whether it was read.
pub struct UnreadStore(Box<dyn Engine>);

/// How the first read of a store ended.
pub enum FirstRead<B> {
    /// All records were read.
    Complete {
        /// The engine, ready to commit.
        engine: Box<dyn Engine>,
        /// What was read.
        restored: Restored,
    },
    /// The sink stopped.
    Stopped {
        /// The store, still unread.
        store: UnreadStore,
        /// The value that the sink stopped with.
        reason: B,
    },
}

impl UnreadStore {
    /// For engines: a store that was opened.
    pub fn new(engine: impl Engine + 'static) -> Self {
        Self(Box::new(engine))
    }

    /// See [`Engine::stats`].
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Reads the store with a sink that can stop with a reason. See [`Engine::read`].
    ///
    /// # Errors
    /// As [`Engine::read`]. The store is released.
    pub fn read_until<B: Send>(
        mut self,
        threads: NonZeroUsize,
        sink: &(dyn Fn(&str, &[u8]) -> ControlFlow<B> + Sync),
    ) -> Result<FirstRead<B>, EngineError> {
        Ok(match self.0.read_until(threads, sink)? {
            ControlFlow::Continue(restored) => FirstRead::Complete { engine: self.0, restored },
            ControlFlow::Break(reason) => FirstRead::Stopped { store: self, reason },
        })
    }

    /// Reads the store with a sink that never stops. See [`Engine::read`].
    ///
    /// # Errors
    /// As [`Engine::read`]. The store is released.
    pub fn read_all(
        mut self,
        threads: NonZeroUsize,
        sink: &(dyn Fn(&str, &[u8]) + Sync),
    ) -> Result<(Box<dyn Engine>, Restored), EngineError> {
        let restored = self.0.read_all(threads, sink)?;
        Ok((self.0, restored))
    }
}
