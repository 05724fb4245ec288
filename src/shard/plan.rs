//! What a push would change: decided without changing anything, so that it can be tried again.

use std::sync::Arc;

use super::Shard;
use super::apply::{AdmittedPlan, TextEdit};
use super::push::{Content, Mode, Outcome, Push, PushedFamily};
use super::registry::{Epoch, FamilyChange, NotNow, Presence, SetId, SharedFamily, type_conflict};
use super::series::has_new_series;
use super::tables::{GroupFamily, NO_HELP, Number};

/// A store keeps a group in one piece, and not all engines can keep a larger one.
const STORED_BYTES_MAX: u64 = 512 << 20;

/// How far a try of a push came.
#[derive(Debug)]
pub enum Decision {
    /// Decided and taken in; the text is changed by [`Shard::step`].
    Apply(TextEdit),
    /// A slot it needs is retired: try again when [`super::registry::Registry::is_past`] says so.
    WaitFor(Epoch),
    /// Other groups may hold the same series: take a lease of each of these families (they are in name order), then look
    /// for twins with [`Shard::duplicate_lookups`], then say so in [`PushAttempt::looked_up`] and try again, still holding the leases.
    NeedsLookup(Vec<Arc<str>>),
}

/// What earlier attempt of one push have brought about.
#[derive(Debug, Default)]
pub struct PushAttempt {
    /// Families whose leases are held and in which no twin was found.
    pub looked_up: Vec<Arc<str>>,
    /// Sets of label names announced for this push.
    pub(super) announced: Vec<(Arc<SharedFamily>, SetId)>,
}

/// What a push does to one family of its group.
#[derive(Debug)]
pub(super) struct Step {
    /// The pushed family's place in the push.
    pub pushed: usize,
    /// The family on this core, if it is known here.
    pub local: Option<Number>,
    /// The group's hold on it.
    pub held: Option<GroupFamily>,
    /// The group holds it with the help text that is pushed, or both have none.
    pub same_help: bool,
    /// The change at the registry that makes room for it, by place.
    pub change: Option<usize>,
}

/// Everything a push does.
struct Plan<'p> {
    steps: Vec<Step>,
    /// What a PUT takes out of the group.
    dropped: Vec<GroupFamily>,
    changes: Vec<FamilyChange<'p>>,
}

impl Shard {
    /// PushAttempt to apply a push at a time given in Unix seconds.
    ///
    /// Reading what others hold and taking it in happen in one go, so nothing can come in between.
    pub fn decide(&mut self, push: &Arc<Push>, attempt: &mut PushAttempt, now_seconds: f64) -> Decision {
        let decision = self.decide_once(push, attempt, now_seconds);
        if matches!(decision, Decision::Apply(_)) {
            self.registry.withdraw(&std::mem::take(&mut attempt.announced));
        }
        decision
    }

    /// Gives a push up that was tried but not begun.
    pub fn abandon(&self, attempt: &mut PushAttempt) {
        self.registry.withdraw(&std::mem::take(&mut attempt.announced));
    }

    fn decide_once(&mut self, push: &Arc<Push>, attempt: &mut PushAttempt, now_seconds: f64) -> Decision {
        debug_assert!(!self.is_restoring(), "a shard that is being restored is asked for nothing else");
        let group = self.groups_by_key.get(push.key.text()).copied();
        // A group that is there has no twin beside it.
        let twin = if group.is_none() { push.key.empty_instance_variant() } else { None };
        if let Some(twin) = twin.filter(|twin| self.groups_by_key.contains_key(twin.text())) {
            let reason = format!(
                "the group {{{}}} exists; one that differs only by an empty instance would show the same push times",
                twin.text()
            );
            return Decision::Apply(TextEdit::ended(Outcome::NotAdmitted(reason)));
        }
        if let Content::Refused(reason) = &push.content {
            return Decision::Apply(self.refuse(push, reason.clone(), now_seconds));
        }
        let set = match group {
            Some(number) => self.groups[number].set,
            None => self.set_id(&push.key.names()),
        };
        if self.is_stored && self.is_too_large(push, group) {
            return Decision::Apply(TextEdit::ended(Outcome::TooLarge));
        }
        let plan = match self.plan(push, group, set) {
            Ok(plan) => plan,
            Err(reason) => return Decision::Apply(self.refuse(push, reason, now_seconds)),
        };
        let unsure = self.unsure_families(push, &plan, group, attempt);
        if !unsure.is_empty() {
            return Decision::NeedsLookup(unsure);
        }
        let commit =
            (self.is_stored && self.gives_up(push, &plan, group)).then(|| self.registry.begin_commit());
        let mut families = Vec::new();
        if !plan.changes.is_empty() {
            match self.registry.change(self.core, &plan.changes, &attempt.announced) {
                Ok(taken) => families = taken,
                Err(not_now) => {
                    return match not_now {
                        NotNow::Conflict(reason) => Decision::Apply(self.refuse(push, reason, now_seconds)),
                        NotNow::Retired(epoch) => Decision::WaitFor(epoch),
                        NotNow::Announced(epoch, sets) => {
                            attempt.announced.extend(sets);
                            Decision::WaitFor(epoch)
                        }
                    };
                }
            }
        }
        let Plan { steps, dropped, .. } = plan;
        let admitted = AdmittedPlan { steps, dropped, families };
        let mut work = self.take_in(push, group, set, &admitted, now_seconds);
        work.commit = commit;
        Decision::Apply(work)
    }

    /// Whether a push gives up a name, a set of label names, or series which another group could take.
    fn gives_up(&self, push: &Push, plan: &Plan<'_>, group: Option<Number>) -> bool {
        let Some(group) = group else { return false };
        let at_registry = |change: &FamilyChange<'_>| {
            matches!(change.presence, Presence::Changed(_) | Presence::Released)
                || change.set_dropped.is_some()
        };
        plan.changes.iter().any(at_registry)
            || plan.dropped.iter().any(|held| self.families[held.family].shared.has_several_sets())
            || plan.steps.iter().any(|step| {
                let pushed = &push.families()[step.pushed];
                step.held.is_some_and(|held| self.loses_series(group, held.family, Some((push, pushed))))
            })
    }

    /// Whether a store could not be sure to keep the group after this push.
    fn is_too_large(&mut self, push: &Push, group: Option<Number>) -> bool {
        if self.bytes_bound_after(push, group) <= STORED_BYTES_MAX {
            return false;
        }
        // Pushes which replace each other made the bound grow.
        if let Some(group) = group {
            self.groups[group].bytes_bound = self.bytes_of(group);
        }
        self.bytes_bound_after(push, group) > STORED_BYTES_MAX
    }

    /// What a group weighs after a push if nothing of it is replaced.
    pub(super) fn bytes_bound_after(&self, push: &Push, group: Option<Number>) -> u64 {
        let old = match push.mode {
            Mode::Merge => group.map_or(0, |group| self.groups[group].bytes_bound),
            Mode::Replace => 0,
        };
        old + push.bytes()
    }

    /// What a group weighs, counted out.
    fn bytes_of(&self, group: Number) -> u64 {
        let held = self.groups[group].held.iter();
        let bytes = held.map(|held| {
            let local = &self.families[held.family];
            let lines: usize = local.text.run(group).map(<[u8]>::len).sum();
            let exact = local.text.exact(group).map_or(0, |exact| exact.len());
            lines + exact + local.help(held.help).map_or(0, |help| help.len())
        });
        bytes.sum::<usize>() as u64
    }

    /// Compares what is pushed with what the group and this core hold.
    fn plan<'p>(&'p self, push: &'p Push, group: Option<Number>, set: SetId) -> Result<Plan<'p>, String> {
        let held: &[GroupFamily] = group.map_or(&[], |number| &self.groups[number].held);
        let steps = Vec::with_capacity(push.families().len());
        let mut plan = Plan { steps, dropped: Vec::new(), changes: Vec::new() };
        for (index, pushed) in push.families().iter().enumerate() {
            let name = push.name(pushed);
            let local = self.families_by_name.get(name).copied();
            let held = local.and_then(|local| find_held(held, local));
            let help = push.help(pushed);
            let same_help = local.zip(held).is_some_and(|(local, held)| {
                self.families[local].help(held.help).map(|help| &**help) == help
            });
            let change = match (local, held) {
                (Some(local), _) => self.change_of((local, held), (pushed, help), same_help, set)?,
                (None, _) => Some(FamilyChange {
                    name,
                    presence: Presence::Claimed(pushed.kind),
                    set_added: Some(set),
                    help_added: help.map(Arc::from),
                    ..FamilyChange::default()
                }),
            };
            let change = change.map(|change| {
                plan.changes.push(change);
                plan.changes.len() - 1
            });
            plan.steps.push(Step { pushed: index, local, held, same_help, change });
        }
        if push.mode == Mode::Replace {
            let mut kept: Vec<Number> = plan.steps.iter().filter_map(|step| step.local).collect();
            kept.sort_unstable();
            let dropped = held.iter().filter(|held| kept.binary_search(&held.family).is_err());
            plan.dropped.extend(dropped);
            let group = group.map_or(&[][..], |number| &self.groups[number].held);
            let gone = group.iter().filter(|held| kept.binary_search(&held.family).is_err());
            plan.changes.extend(gone.filter_map(|held| self.drop_of(held, set)));
        }
        Ok(plan)
    }

    /// What the registry must hear about a family that is pushed and that this core knows. `None` in the common case: nothing.
    fn change_of(
        &self,
        (local, held): (Number, Option<GroupFamily>),
        (pushed, help): (&PushedFamily, Option<&str>),
        same_help: bool,
        set: SetId,
    ) -> Result<Option<FamilyChange<'_>>, String> {
        let family = &self.families[local];
        let name = &*family.shared.name;
        let presence = match held {
            _ if family.kind == pushed.kind => Presence::Unchanged,
            Some(_) if family.holders == 1 => Presence::Changed(pushed.kind),
            _ => return Err(type_conflict(name, family.kind, pushed.kind)),
        };
        let old_help = held.and_then(|held| family.help(held.help));
        let change = FamilyChange {
            name,
            presence,
            set_added: (held.is_none() && family.groups_of_set(set) == 0).then_some(set),
            set_dropped: None,
            help_added: help.filter(|help| !same_help && family.find_help(help).is_none()).map(Arc::from),
            help_dropped: held
                .filter(|held| !same_help && held.help != NO_HELP && family.groups_of_help(held.help) == 1)
                .and(old_help.cloned()),
        };
        let silent = change.presence == Presence::Unchanged
            && change.set_added.is_none()
            && change.help_added.is_none()
            && change.help_dropped.is_none();
        Ok((!silent).then_some(change))
    }

    /// What the registry must hear about a family that a group gives up.
    pub(super) fn drop_of(&self, held: &GroupFamily, set: SetId) -> Option<FamilyChange<'_>> {
        let family = &self.families[held.family];
        let last = family.holders == 1;
        let set_dropped = (family.groups_of_set(set) == 1).then_some(set);
        let help_dropped = family.help(held.help).filter(|_| family.groups_of_help(held.help) == 1).cloned();
        (last || set_dropped.is_some() || help_dropped.is_some()).then(|| FamilyChange {
            name: &family.shared.name,
            presence: if last { Presence::Released } else { Presence::Unchanged },
            set_dropped,
            help_dropped,
            ..FamilyChange::default()
        })
    }

    /// The pushed families in which another group may hold one of the new series, by name.
    ///
    /// With equal label names two groups differ in some value, and the values of the URL are on every series: only a family
    /// with several sets of label names can have twins, and only by series which the group did not have before.
    fn unsure_families(
        &self,
        push: &Push,
        plan: &Plan<'_>,
        group: Option<Number>,
        attempt: &PushAttempt,
    ) -> Vec<Arc<str>> {
        let mut unsure = Vec::new();
        let mut all_looked_up = true;
        for step in &plan.steps {
            let pushed = &push.families()[step.pushed];
            let name = push.name(pushed);
            let announced = || attempt.announced.iter().find(|(family, _)| *family.name == *name);
            let shared = match step.local {
                Some(local) => &self.families[local].shared,
                None => match announced() {
                    Some((shared, _)) => shared,
                    None => continue,
                },
            };
            if !shared.has_several_sets() {
                continue;
            }
            let old: Vec<u8> = match (group, step.local) {
                (Some(group), Some(local)) => {
                    self.families[local].text.run(group).collect::<Vec<_>>().concat()
                }
                _ => Vec::new(),
            };
            if has_new_series(name, pushed.kind, &old, push.text(pushed)) {
                all_looked_up &= attempt.looked_up.contains(&shared.name);
                unsure.push(shared.name.clone());
            }
        }
        if all_looked_up {
            return Vec::new();
        }
        // All of them again: leases are taken in name order, or two pushes could wait for each other.
        unsure.sort_unstable();
        unsure
    }
}

/// A group's hold on a family; `held` is sorted by family.
pub(super) fn find_held(held: &[GroupFamily], family: Number) -> Option<GroupFamily> {
    held.binary_search_by_key(&family, |held| held.family).ok().map(|at| held[at])
}
