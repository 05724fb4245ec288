//! Batches from a seed: the same seed and number give the same batch in every process.

use fastrand::Rng;

use crate::Change;

use super::State;

/// A change that owns its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// See [`Change::Put`].
    Put(String, Vec<u8>),
    /// See [`Change::Delete`].
    Delete(String),
}

impl Op {
    /// A put of a key and a record.
    pub fn put(key: &str, record: &[u8]) -> Self {
        Self::Put(key.to_owned(), record.to_vec())
    }

    /// The change, borrowed.
    pub fn change(&self) -> Change<'_> {
        match self {
            Self::Put(key, record) => Change::Put { key, record },
            Self::Delete(key) => Change::Delete { key },
        }
    }

    /// Applies the change to a state.
    pub fn apply(&self, state: &mut State) {
        match self {
            Self::Put(key, record) => {
                state.insert(key.clone(), record.clone());
            }
            Self::Delete(key) => {
                state.remove(key);
            }
        }
    }
}

/// A history of batches.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Selects the history.
    pub seed: u64,
    /// How many different groups the batches change.
    pub keys: usize,
    /// The longest record.
    pub record_bytes_max: usize,
}

impl Plan {
    /// A batch by its number, from 1.
    pub fn batch(&self, number: u64) -> Vec<Op> {
        let mut random = Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if random.u8(..100) == 0 {
            return (0..self.keys).map(|key| Op::Delete(Self::key(key))).collect();
        }
        let count = if random.u8(..8) == 0 { random.usize(8..40) } else { random.usize(1..4) };
        (0..count).map(|_| self.op(&mut random)).collect()
    }

    fn op(&self, random: &mut Rng) -> Op {
        let key = Self::key(random.usize(..self.keys));
        if random.u8(..100) < 20 {
            return Op::Delete(key);
        }
        let length = random.usize(..=self.record_bytes_max);
        Op::Put(key, (0..length).map(|_| random.u8(..)).collect())
    }

    fn key(number: usize) -> String {
        format!("job=\"job {number}\",zone=\"eu\"")
    }

    /// The state after a number of batches.
    pub fn state(&self, batches: u64) -> State {
        let mut state = State::new();
        self.advance(&mut state, 0, batches);
        state
    }

    /// Advances the state after `from` batches to the state after `to` batches.
    pub fn advance(&self, state: &mut State, from: u64, to: u64) {
        for number in from + 1..=to {
            self.batch(number).iter().for_each(|op| op.apply(state));
        }
    }
}
