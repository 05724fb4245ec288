//! Batches from a seed: the same seed and number give the same batch in every process.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::Change;
use crate::record::{Family, Kind, Numbers, Record, apply_patches};

use super::State;

/// How many families a record has at most.
const FAMILIES_MAX: usize = 8;

/// A change that owns its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// See [`Change::Put`].
    Put(String, Vec<u8>),
    /// See [`Change::Patch`].
    Patch(String, Vec<u8>),
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
            Self::Patch(key, patch) => Change::Patch { key, patch },
            Self::Delete(key) => Change::Delete { key },
        }
    }

    /// Applies the change to a state.
    pub fn apply(&self, state: &mut State) {
        match self {
            Self::Put(key, record) => {
                state.insert(key.clone(), record.clone());
            }
            Self::Patch(key, patch) => {
                if let Some(record) = state.get_mut(key) {
                    let mut patched = Vec::new();
                    apply_patches(record, &[patch], &mut patched).expect("valid records");
                    *record = patched;
                }
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
        let number = random.usize(..self.keys);
        let key = Self::key(number);
        if random.u8(..100) < 20 {
            return Op::Delete(key);
        }
        if number % 4 == 1 {
            return Self::lines_op(key, random);
        }
        // Other groups have opaque bytes, and are never patched.
        if number.is_multiple_of(2) {
            let families = random.usize(..=FAMILIES_MAX);
            return if random.u8(..100) < 40 {
                Op::Put(key, self.record(random, families))
            } else {
                Op::Patch(key, self.record(random, families / 2))
            };
        }
        let length = random.usize(..=self.record_bytes_max);
        Op::Put(key, (0..length).map(|_| random.u8(..)).collect())
    }

    /// A change of a group that always has three lines, mostly of their numbers.
    fn lines_op(key: String, random: &mut Rng) -> Op {
        let mut number = || f64::from(random.u32(..)) / 8.0;
        let seconds = number();
        let texts = [
            ("a", format!("a {}\n", number())),
            ("b", format!("b{{x=\"1\"}} {}\nb{{x=\"2\"}} {}\n", number(), number())),
        ];
        let numbers = [number(), number(), number()];
        let (families_len, is_put) = (random.usize(..16), random.u8(..4) == 0);
        let families = texts.iter().take(if is_put { 2 } else { families_len }).map(|(name, text)| Family {
            name,
            kind: Kind::Untyped,
            help: None,
            push_seconds: seconds,
            text: text.as_bytes(),
            exact: None,
        });
        let record = Record {
            revision: 0,
            push_seconds: seconds,
            failure_seconds: 0.0,
            created_seconds: 1.0,
            expires_seconds: None,
            families: families.collect(),
        };
        let mut out = Vec::new();
        if is_put || families_len <= 2 {
            record.encode(&mut out).expect("a small record");
        } else {
            Numbers::encode(&mut out, &record, numbers.into_iter()).expect("few numbers");
        }
        if is_put { Op::Put(key, out) } else { Op::Patch(key, out) }
    }

    /// A valid record with up to `families` families.
    fn record(&self, random: &mut Rng, families: usize) -> Vec<u8> {
        let families: BTreeMap<String, Vec<u8>> = (0..families)
            .map(|_| {
                let length = random.usize(..=self.record_bytes_max / FAMILIES_MAX);
                let name = format!("family_{}", random.usize(..FAMILIES_MAX));
                (name, (0..length).map(|_| random.u8(..)).collect())
            })
            .collect();
        let seconds = f64::from(random.u32(..));
        let families = families.iter().map(|(name, text)| Family {
            name,
            kind: Kind::Untyped,
            help: random.bool().then_some("a help text"),
            push_seconds: seconds,
            text,
            exact: None,
        });
        let record = Record {
            revision: 0,
            push_seconds: seconds,
            failure_seconds: 0.0,
            created_seconds: 1.0,
            expires_seconds: None,
            families: families.collect(),
        };
        let mut out = Vec::new();
        record.encode(&mut out).expect("a small record");
        out
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
