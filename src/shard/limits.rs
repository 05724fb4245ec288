//! Limits on what the groups of all cores contain together.
//!
//! The cores share the totals. A push reserves its growth before it is applied, so that pushes on several cores cannot exceed a limit
//! together; when its text is complete, its core corrects the totals to what it really contains. The reservation ignores only that
//! the push times of an existing group may become some bytes longer.

use std::sync::atomic::{AtomicI64, Ordering};

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Groups.
    Groups,
    /// Series, including push times.
    Series,
    /// Bytes of rendered lines, help texts, and exact protobuf.
    Bytes,
}

impl Quantity {
    /// All quantities.
    pub const ALL: [Self; 3] = [Self::Groups, Self::Series, Self::Bytes];

    /// The flag that limits it.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Groups => "push.groups-max",
            Self::Series => "push.series-max",
            Self::Bytes => "push.bytes-max",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Series => "series",
            Self::Bytes => "bytes",
        }
    }
}

/// The maximum of each quantity; `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateLimits {
    /// Groups.
    pub groups_max: Option<u64>,
    /// Series, including push times.
    pub series_max: Option<u64>,
    /// Bytes of rendered lines, help texts, and exact protobuf.
    pub bytes_max: Option<u64>,
}

impl StateLimits {
    fn of(&self, quantity: Quantity) -> Option<i64> {
        let max = match quantity {
            Quantity::Groups => self.groups_max,
            Quantity::Series => self.series_max,
            Quantity::Bytes => self.bytes_max,
        };
        max.map(|max| i64::try_from(max).unwrap_or(i64::MAX))
    }
}

/// The limit that a push would exceed. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the push would exceed the limit --{}={max}: the gateway contains {total} {}, and the push adds {growth}",
    quantity.flag(),
    quantity.name()
)]
pub struct LimitExceeded {
    quantity: Quantity,
    max: i64,
    /// The total without the push.
    total: i64,
    growth: i64,
}

/// An amount of each quantity, or a change of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub groups: i64,
    pub series: i64,
    pub bytes: i64,
}

impl Amounts {
    fn of(&self, quantity: Quantity) -> i64 {
        match quantity {
            Quantity::Groups => self.groups,
            Quantity::Series => self.series,
            Quantity::Bytes => self.bytes,
        }
    }
}

impl std::ops::AddAssign for Amounts {
    fn add_assign(&mut self, other: Self) {
        self.groups += other.groups;
        self.series += other.series;
        self.bytes += other.bytes;
    }
}

impl std::ops::Sub for Amounts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            groups: self.groups - other.groups,
            series: self.series - other.series,
            bytes: self.bytes - other.bytes,
        }
    }
}

/// What the groups of all cores contain.
#[derive(Debug)]
pub(super) struct Totals {
    limits: StateLimits,
    totals: [AtomicI64; Quantity::ALL.len()],
}

impl Totals {
    /// `None` if there are no limits, because then nothing needs the totals.
    pub fn new(limits: StateLimits) -> Option<Self> {
        let totals = std::array::from_fn(|_| AtomicI64::new(0));
        (limits != StateLimits::default()).then_some(Self { limits, totals })
    }

    /// Adds the growth of a push, unless that exceeds a limit of a quantity that grows.
    pub fn try_add(&self, growth: Amounts) -> Result<(), LimitExceeded> {
        for (at, quantity) in Quantity::ALL.into_iter().enumerate() {
            if let Err(exceeded) = self.try_add_one(quantity, growth.of(quantity)) {
                for added in &Quantity::ALL[..at] {
                    self.total_of(*added).fetch_sub(growth.of(*added), Ordering::Relaxed);
                }
                return Err(exceeded);
            }
        }
        Ok(())
    }

    fn try_add_one(&self, quantity: Quantity, growth: i64) -> Result<(), LimitExceeded> {
        let total = self.total_of(quantity);
        match self.limits.of(quantity) {
            Some(max) if growth > 0 => {
                let add = |total: i64| Some(total.saturating_add(growth)).filter(|total| *total <= max);
                let added = total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
                added.map(drop).map_err(|total| LimitExceeded { quantity, max, total, growth })
            }
            _ => {
                total.fetch_add(growth, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Adds a change that has happened already.
    pub fn add(&self, change: Amounts) {
        for quantity in Quantity::ALL {
            self.total_of(quantity).fetch_add(change.of(quantity), Ordering::Relaxed);
        }
    }

    /// The limited quantities with their totals and their limits.
    pub fn limited(&self) -> impl Iterator<Item = (Quantity, u64, u64)> {
        let limited = |quantity| {
            let total = self.total_of(quantity).load(Ordering::Relaxed);
            Some((quantity, total.max(0) as u64, self.limits.of(quantity)? as u64))
        };
        Quantity::ALL.into_iter().filter_map(limited)
    }

    fn total_of(&self, quantity: Quantity) -> &AtomicI64 {
        &self.totals[quantity as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        let limits = StateLimits { groups_max: Some(2), series_max: Some(10), bytes_max: None };
        Totals::new(limits).expect("has limits")
    }

    #[test]
    fn only_a_quantity_that_grows_is_limited() {
        let totals = totals();
        totals.add(Amounts { groups: 5, series: 5, bytes: 5 });
        assert_eq!(totals.try_add(Amounts { groups: 0, series: 5, bytes: 900 }), Ok(()));
        assert_eq!(totals.try_add(Amounts { groups: -1, series: -2, bytes: 0 }), Ok(()));
        let error = totals.try_add(Amounts { groups: 1, series: 0, bytes: 0 }).expect_err("is full");
        assert_eq!(
            error.to_string(),
            "the push would exceed the limit --push.groups-max=2: the gateway contains 4 groups, and the push adds 1"
        );
    }

    #[test]
    fn a_refused_push_adds_nothing() {
        let totals = totals();
        assert!(totals.try_add(Amounts { groups: 1, series: 11, bytes: 5 }).is_err());
        let limited: Vec<_> = totals.limited().collect();
        assert_eq!(limited, [(Quantity::Groups, 0, 2), (Quantity::Series, 0, 10)]);
    }
}
