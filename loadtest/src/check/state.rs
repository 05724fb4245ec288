//! The state of one group as the checker knows it: what is certain, and what no scrape has shown yet.

use crate::history::ABSENT;

/// Value of a slot whose push no scrape shows. All such pushes are interchangeable.
pub const UNSEEN: u64 = u64::MAX;
/// Value of a slot about which nothing is known: any value fits that was pushed before.
pub const ANY: u64 = u64::MAX - 1;

/// A group as a scrape showed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObservedState {
    /// Values packed by [`crate::history::pack_slot`]; [`ABSENT`] without a family.
    pub slots: Vec<u64>,
    /// Bits of the push time.
    pub pushed: u64,
    /// Bits of the failure time.
    pub failed: u64,
}

/// A push time or a failure time, in the bits of a float. The bits of positive floats have the order of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupTime {
    /// The time is 0, because there was no such request.
    Zero,
    /// A scrape showed this time.
    At(u64),
    /// A request has set it and no scrape has shown it yet; it is not before this time.
    NotBefore(u64),
    /// Nothing is known.
    Any,
}

impl GroupTime {
    /// The time after another request has set it.
    pub fn advance(self) -> Self {
        match self {
            Self::Zero | Self::Any => Self::NotBefore(0),
            Self::At(time) | Self::NotBefore(time) => Self::NotBefore(time),
        }
    }

    /// Fixes the time to an observed one; false if they contradict.
    #[must_use]
    pub fn observe(&mut self, observed: u64) -> bool {
        let fits = match *self {
            Self::Zero => observed == 0,
            Self::At(time) => observed == time,
            Self::NotBefore(time) => observed != 0 && observed >= time,
            Self::Any => true,
        };
        *self = if observed == 0 { Self::Zero } else { Self::At(observed) };
        fits
    }

    /// Whether the time is known and equal to an observed one.
    pub fn is_exactly(self, observed: u64) -> bool {
        match self {
            Self::Zero => observed == 0,
            Self::At(time) => observed == time,
            Self::NotBefore(_) | Self::Any => false,
        }
    }
}

/// The possible state of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupState {
    /// Whether the group exists; `None` if unknown.
    pub exists: Option<bool>,
    /// Push time.
    pub pushed: GroupTime,
    /// Failure time.
    pub failed: GroupTime,
    /// Observed values, [`ABSENT`], [`UNSEEN`] or [`ANY`].
    pub slots: Box<[u64]>,
}

impl GroupState {
    /// The group does not exist.
    pub fn absent(slot_count: usize) -> Self {
        Self {
            exists: Some(false),
            pushed: GroupTime::Zero,
            failed: GroupTime::Zero,
            slots: vec![ABSENT; slot_count].into(),
        }
    }

    /// Nothing is known.
    pub fn unknown(slot_count: usize) -> Self {
        Self {
            exists: None,
            pushed: GroupTime::Any,
            failed: GroupTime::Any,
            slots: vec![ANY; slot_count].into(),
        }
    }

    /// Whether the state is completely known and equal to an observation; `None` is the absence of the group.
    pub fn is_exactly(&self, observed: Option<&ObservedState>) -> bool {
        match observed {
            None => self.exists == Some(false),
            Some(observed) => {
                self.exists == Some(true)
                    && *self.slots == *observed.slots
                    && self.pushed.is_exactly(observed.pushed)
                    && self.failed.is_exactly(observed.failed)
            }
        }
    }

    /// Applies a push that gives `slots` their values.
    pub fn push(&mut self, replaces_group: bool, slots: impl Iterator<Item = (usize, u64)>) {
        if replaces_group {
            self.slots.fill(ABSENT);
        }
        for (slot, value) in slots {
            self.slots[slot] = value;
        }
        self.pushed = self.pushed.advance();
        if self.exists.is_none() {
            // The group may be new, and its failure time with it.
            self.failed = GroupTime::Any;
        }
        self.exists = Some(true);
    }

    /// Applies a rejection by the consistency check.
    pub fn reject(&mut self) {
        self.failed = self.failed.advance();
        self.exists = Some(true);
    }

    /// Applies the observation that the group is absent; false if it exists.
    #[must_use]
    pub fn observe_absence(&mut self) -> bool {
        let fits = self.exists != Some(true);
        *self = Self::absent(self.slots.len());
        fits
    }

    /// Applies an observation; false if it contradicts the state. `may_be_old` tells whether a value was possibly pushed
    /// before the slot became [`ANY`].
    #[must_use]
    pub fn observe(&mut self, observed: &ObservedState, may_be_old: impl Fn(u64) -> bool) -> bool {
        if self.exists == Some(false) {
            return false;
        }
        for (known, observed) in self.slots.iter_mut().zip(&observed.slots) {
            let fits = if *known == ANY {
                *observed == ABSENT || may_be_old(*observed)
            } else {
                *known == *observed
            };
            if !fits {
                return false;
            }
            *known = *observed;
        }
        self.exists = Some(true);
        self.pushed.observe(observed.pushed) && self.failed.observe(observed.failed)
    }
}
