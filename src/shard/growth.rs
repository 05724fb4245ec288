//! How much a push makes the state grow, and what becomes of a push for which there is no room.

use crate::exposition::number::write_float;

use super::limits::{Amounts, LimitExceeded};
use super::outcome::{Failure, Rejection};
use super::pace::{CHANGE, LOOK, Pace};
use super::plan::{Decision, Plan};
use super::push::Push;
use super::registry::FamilyChange;
use super::slab::Number;
use super::tables::GroupFamily;
use super::text_edit::Edit;
use super::{FAILURE_TIME, PUSH_TIME, Shard};

impl Shard {
    /// Reserves room for what a planned push adds, if there are limits. Call [`Self::account`] if the push is applied, otherwise
    /// [`Self::cancel`].
    pub(super) async fn reserve(
        &self,
        push: &Push,
        plan: &Plan<'_>,
        group: Option<Number>,
        now_seconds: f64,
        pace: &Pace,
    ) -> Result<Amounts, LimitExceeded> {
        let Some(totals) = self.registry.totals() else { return Ok(Amounts::default()) };
        let mut growth =
            if group.is_none() { growth_of_new_group(push, now_seconds) } else { Amounts::default() };
        growth.bytes += help_bytes(&plan.changes, pace).await;
        for step in &plan.steps {
            pace.spend(CHANGE).await;
            growth += push.amounts(&push.families()[step.pushed]);
            growth = growth - self.amounts_of(group, step.old);
        }
        for old in &plan.dropped {
            pace.spend(LOOK).await;
            growth = growth - self.amounts_of(group, Some(*old));
        }
        totals.try_add(growth).map(|()| growth)
    }

    /// Counts reserved amounts as those of this core.
    pub(super) fn account(&mut self, reserved: Amounts) {
        self.accounted += reserved;
    }

    /// Gives reserved amounts back.
    pub(super) fn cancel(&self, reserved: Amounts) {
        if let Some(totals) = self.registry.totals() {
            totals.add(Amounts::default() - reserved);
        }
    }

    /// What a group has in a family, without its help text.
    pub(super) fn amounts_of(&self, group: Option<Number>, family: Option<GroupFamily>) -> Amounts {
        let Some((group, family)) = group.zip(family) else { return Amounts::default() };
        let text = &self.families[family.number].text;
        let (bytes, lines) = text.measure(group);
        let exact = text.lines_and_exact(group).1.map_or(0, |exact| exact.len());
        Amounts { groups: 0, series: lines as i64, bytes: (bytes + exact) as i64 }
    }

    /// Corrects the totals to what this core contains. It ends each reservation.
    pub(super) fn settle_totals(&mut self) {
        let Some(totals) = self.registry.totals() else { return };
        let now = Amounts {
            groups: self.groups.len() as i64,
            series: self.counts.series as i64,
            bytes: self.counts.bytes as i64 + self.extra_bytes,
        };
        totals.add(now - self.accounted);
        self.accounted = now;
    }

    /// Gives the group of a failed push a failure time. If the group does not exist and a limit leaves no room for it, the push is
    /// rejected.
    pub(super) fn fail(
        &mut self,
        push: &Push,
        failure: impl Into<Failure>,
        now_seconds: f64,
    ) -> Decision<Edit> {
        let failure = failure.into();
        if let Some(totals) = self.registry.totals()
            && self.groups.number_of(push.key.text()).is_none()
        {
            let growth = growth_of_new_group(push, now_seconds);
            if let Err(exceeded) = totals.try_add(growth) {
                return Decision::Reject(Rejection::OverLimit(match failure {
                    Failure::OverLimit(first) => first,
                    Failure::Inconsistent(_) => exceeded,
                }));
            }
            self.account(growth);
        }
        Decision::Apply(self.apply_failure(push, failure, now_seconds))
    }
}

/// What a group without families adds: the lines of its push times.
fn growth_of_new_group(push: &Push, now_seconds: f64) -> Amounts {
    let mut times = Vec::new();
    write_float(&mut times, now_seconds);
    // One of the times is 0, and each line has two braces, a space and a line feed.
    let lines = 2 * (push.key.series_labels().len() + 4) + times.len() + 1;
    Amounts { groups: 1, series: 2, bytes: (PUSH_TIME.len() + FAILURE_TIME.len() + lines) as i64 }
}

/// How many more bytes of help texts a core has after these changes.
pub(super) async fn help_bytes(changes: &[FamilyChange<'_>], pace: &Pace) -> i64 {
    let mut bytes = 0;
    for FamilyChange { help_added, help_dropped, .. } in changes {
        pace.spend(LOOK / 16).await;
        bytes += help_added.as_ref().map_or(0, |help| help.len() as i64);
        bytes -= help_dropped.as_ref().map_or(0, |help| help.len() as i64);
    }
    bytes
}
