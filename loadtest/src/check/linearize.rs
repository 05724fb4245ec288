//! Decides whether the history of one group is linearizable: whether some order of its requests agrees with the times of all
//! requests and with everything that the scrapes showed.
//!
//! The search keeps a set of *configurations*. A configuration is a possible state of the group, and which of the actions in
//! flight have already taken effect. When an action returns, it must have taken effect, so every configuration is extended by
//! all orders of the actions in flight until it has (G. Lowe, "Testing for linearizability": just-in-time linearization).
//! The history is not linearizable when no configuration is left.
//!
//! Three rules keep the set small. Every push is unique, and pushes that no scrape shows are interchangeable (`UNSEEN`). Of
//! actions in flight with the same effect, the one that returns first takes effect first. An observation that fits takes
//! effect at once, because it changes nothing. If the set exceeds its bound nevertheless, the interval is undecided and the
//! search continues from an unknown state (`ANY`).

use std::collections::{HashMap, HashSet};

use super::state::{GroupState, ObservedState, UNSEEN};
use crate::history::NEVER;

/// Actions in flight at a time that the search follows.
const IN_FLIGHT_MAX: usize = 128;

/// What an action does to a group, or shows of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// An accepted push.
    Push {
        /// PUT: families that it does not carry disappear.
        replaces_group: bool,
        /// Slots that it carries, and their values afterwards.
        slots: Vec<(usize, u64)>,
    },
    /// DELETE.
    Delete,
    /// A push that the consistency check rejected: the group exists, keeps its content, and has a new failure time.
    Reject,
    /// A scrape showed this state; `None` if the group was absent.
    Observe(Option<ObservedState>),
    /// The gateway was killed: effects without a response may be lost.
    Kill,
}

/// Something that happened between `start` and `end`.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Earliest time.
    pub start: u64,
    /// Latest time; [`NEVER`] if unknown.
    pub end: u64,
    /// What it does.
    pub effect: Effect,
    /// Possibly it never took effect.
    pub optional: bool,
    /// A response confirmed it, so it survives a kill.
    pub acknowledged: bool,
}

/// The result for one history.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists.
    Linearizable {
        /// Intervals with too many possible orders to decide.
        undecided: usize,
    },
    /// No order exists.
    Violation {
        /// Index of the action that no order explains.
        action: usize,
    },
}

/// What is known before the first action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialState {
    /// The group does not exist.
    Absent,
    /// Nothing; pushes that began up to this time may have taken effect.
    UnknownAt(u64),
}

/// Decides one history. The search keeps at most `configurations_max` configurations.
pub fn decide(
    slot_count: usize,
    actions: &[Action],
    initial: InitialState,
    configurations_max: usize,
) -> Verdict {
    Search::new(slot_count, actions, initial, configurations_max).run()
}

/// A possible present.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Configuration {
    state: GroupState,
    /// Which actions in flight have taken effect, by position in [`Search::in_flight`].
    effective: u128,
    /// States to which a kill could revert the group, sorted.
    undo: Vec<GroupState>,
}

struct Search<'a> {
    slot_count: usize,
    actions: &'a [Action],
    configurations_max: usize,
    configurations: Vec<Configuration>,
    /// Slot values that some scrape shows.
    observed: HashSet<u64>,
    /// When the push of a slot value began.
    pushed_at: HashMap<u64, u64>,
    /// Pushes that began up to this time may be in a slot of which nothing is known.
    unknown_until: u64,
    has_kills: bool,
    /// Indexes of the actions in flight.
    in_flight: [Option<usize>; IN_FLIGHT_MAX],
    undecided: usize,
    /// Actions that were in flight in an undecided interval.
    undecided_actions: HashSet<usize>,
}

/// Why the search cannot continue from its configurations.
enum DeadEnd {
    NoConfiguration,
    TooManyConfigurations,
}

impl<'a> Search<'a> {
    fn new(
        slot_count: usize,
        actions: &'a [Action],
        initial: InitialState,
        configurations_max: usize,
    ) -> Self {
        let observed = actions.iter().filter_map(|action| match &action.effect {
            Effect::Observe(Some(state)) => Some(&state.slots),
            _ => None,
        });
        let pushed_at = actions.iter().flat_map(|action| match &action.effect {
            Effect::Push { slots, .. } => slots.iter().map(|(_, value)| (*value, action.start)).collect(),
            _ => Vec::new(),
        });
        let (state, unknown_until) = match initial {
            InitialState::Absent => (GroupState::absent(slot_count), 0),
            InitialState::UnknownAt(time) => (GroupState::unknown(slot_count), time),
        };
        Self {
            slot_count,
            actions,
            configurations_max,
            configurations: vec![Configuration::new(state)],
            observed: observed.flatten().copied().collect(),
            pushed_at: pushed_at.collect(),
            unknown_until,
            has_kills: actions.iter().any(|action| action.effect == Effect::Kill),
            in_flight: [None; IN_FLIGHT_MAX],
            undecided: 0,
            undecided_actions: HashSet::new(),
        }
    }

    fn run(mut self) -> Verdict {
        // At equal times, starts come before returns: this allows more orders, never fewer.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(self.actions.len() * 2);
        for (at, action) in self.actions.iter().enumerate() {
            events.push((action.start, false, at));
            if action.end != NEVER {
                events.push((action.end, true, at));
            }
        }
        events.sort_unstable();
        for (time, is_return, at) in events {
            if self.actions[at].effect == Effect::Kill {
                if is_return {
                    self.kill();
                }
                continue;
            }
            let result = if is_return { self.finish(at) } else { self.start(at) };
            match result {
                Ok(()) => {}
                Err(DeadEnd::NoConfiguration) => return Verdict::Violation { action: at },
                Err(DeadEnd::TooManyConfigurations) => self.skip_interval(time),
            }
        }
        Verdict::Linearizable { undecided: self.undecided }
    }

    fn start(&mut self, at: usize) -> Result<(), DeadEnd> {
        let free = self.in_flight.iter().position(Option::is_none);
        let position = free.ok_or(DeadEnd::TooManyConfigurations)?;
        self.in_flight[position] = Some(at);
        let mut configurations = std::mem::take(&mut self.configurations);
        for configuration in &mut configurations {
            self.apply_fitting_observations(configuration);
        }
        self.configurations = configurations;
        Ok(())
    }

    fn finish(&mut self, at: usize) -> Result<(), DeadEnd> {
        let position = self.in_flight.iter().position(|held| *held == Some(at));
        let Some(position) = position else { return Ok(()) };
        let bit = 1_u128 << position;
        let optional = self.is_optional(at);
        let mut open = std::mem::take(&mut self.configurations);
        let mut known: HashSet<Configuration> = open.iter().cloned().collect();
        let mut finished: HashSet<Configuration> = HashSet::new();
        while let Some(configuration) = open.pop() {
            let is_effective = configuration.effective & bit != 0;
            if is_effective || optional {
                let mut without = configuration.clone();
                without.effective &= !bit;
                finished.insert(without);
            }
            if is_effective {
                continue;
            }
            for next in self.successors(&configuration) {
                if !known.contains(&next) {
                    known.insert(next.clone());
                    open.push(next);
                }
            }
            if known.len() > self.configurations_max {
                return Err(DeadEnd::TooManyConfigurations);
            }
        }
        self.in_flight[position] = None;
        self.configurations = finished.into_iter().collect();
        if self.configurations.is_empty() { Err(DeadEnd::NoConfiguration) } else { Ok(()) }
    }

    /// Configurations after one more action in flight has taken effect.
    fn successors(&self, configuration: &Configuration) -> Vec<Configuration> {
        let waiting: Vec<(usize, usize)> = (0..IN_FLIGHT_MAX)
            .filter(|position| configuration.effective & (1 << position) == 0)
            .filter_map(|position| self.in_flight[position].map(|at| (position, at)))
            .collect();
        let mut successors = Vec::new();
        for (position, at) in waiting.iter().copied() {
            let action = &self.actions[at];
            let goes_first = |(_, other): &(usize, usize)| {
                let order = (self.actions[*other].end, *other);
                *other != at && order < (action.end, at) && self.are_interchangeable(*other, at)
            };
            if waiting.iter().any(goes_first) {
                continue;
            }
            let mut next = configuration.clone();
            if !self.apply(&action.effect, &mut next.state) {
                continue;
            }
            next.effective |= 1 << position;
            if self.has_kills && !matches!(action.effect, Effect::Observe(_)) {
                next.record_undo(&configuration.state, action.acknowledged);
            }
            self.apply_fitting_observations(&mut next);
            successors.push(next);
        }
        successors
    }

    /// Whether exchanging two actions makes no difference to any later state.
    fn are_interchangeable(&self, a: usize, b: usize) -> bool {
        let (left, right) = (&self.actions[a], &self.actions[b]);
        let same_effect = match (&left.effect, &right.effect) {
            (Effect::Delete, Effect::Delete) | (Effect::Reject, Effect::Reject) => true,
            (
                Effect::Push { replaces_group: a, slots: left },
                Effect::Push { replaces_group: b, slots: right },
            ) => {
                let is_unseen =
                    |slots: &[(usize, u64)]| slots.iter().all(|(_, value)| !self.observed.contains(value));
                let same_slots = left.iter().map(|(slot, _)| slot).eq(right.iter().map(|(slot, _)| slot));
                a == b && same_slots && is_unseen(left) && is_unseen(right)
            }
            _ => false,
        };
        same_effect && left.acknowledged == right.acknowledged && self.is_optional(a) == self.is_optional(b)
    }

    fn is_optional(&self, at: usize) -> bool {
        self.actions[at].optional || self.undecided_actions.contains(&at)
    }

    /// Lets observations take effect that the state matches exactly; they exclude no order.
    fn apply_fitting_observations(&self, configuration: &mut Configuration) {
        for (position, at) in self.in_flight.iter().enumerate() {
            let Some(at) = at else { continue };
            if configuration.effective & (1 << position) == 0
                && let Effect::Observe(observed) = &self.actions[*at].effect
                && configuration.state.is_exactly(observed.as_ref())
            {
                configuration.effective |= 1 << position;
            }
        }
    }

    /// Applies an effect to a state; false if it contradicts the state.
    fn apply(&self, effect: &Effect, state: &mut GroupState) -> bool {
        match effect {
            Effect::Push { replaces_group, slots } => {
                let value = |value: u64| if self.observed.contains(&value) { value } else { UNSEEN };
                state.push(*replaces_group, slots.iter().map(|(slot, pushed)| (*slot, value(*pushed))));
                true
            }
            Effect::Delete => {
                *state = GroupState::absent(self.slot_count);
                true
            }
            Effect::Reject => {
                state.reject();
                true
            }
            Effect::Observe(None) => state.observe_absence(),
            Effect::Observe(Some(observed)) => state.observe(observed, |value| {
                self.pushed_at.get(&value).is_none_or(|start| *start <= self.unknown_until)
            }),
            Effect::Kill => true,
        }
    }

    fn kill(&mut self) {
        // Nothing was in flight any more; requests without a response have ended.
        self.in_flight = [None; IN_FLIGHT_MAX];
        let mut after = HashSet::new();
        for configuration in self.configurations.drain(..) {
            for state in configuration.undo.into_iter().chain([configuration.state]) {
                after.insert(Configuration { state, effective: 0, undo: Vec::new() });
            }
        }
        self.configurations = after.into_iter().collect();
    }

    /// Leaves the interval up to `time` undecided and continues from an unknown state.
    fn skip_interval(&mut self, time: u64) {
        self.undecided += 1;
        self.unknown_until = time;
        self.undecided_actions.extend(self.in_flight.iter().flatten().copied());
        self.configurations = vec![Configuration::new(GroupState::unknown(self.slot_count))];
        // Actions without a known end would otherwise occupy their positions for ever.
        for position in &mut self.in_flight {
            let has_ended = |at: usize| self.actions[at].end == NEVER || self.actions[at].end <= time;
            if position.is_some_and(has_ended) {
                *position = None;
            }
        }
    }
}

impl Configuration {
    /// A configuration to start from. If the state is unknown, so is the state to which a kill would revert the group.
    fn new(state: GroupState) -> Self {
        let undo = if state.exists.is_none() { vec![state.clone()] } else { Vec::new() };
        Self { state, effective: 0, undo }
    }

    /// Records that an action changed the group: an acknowledged one survives a kill, with everything before it.
    fn record_undo(&mut self, before: &GroupState, is_acknowledged: bool) {
        if is_acknowledged {
            self.undo.clear();
        } else if let Err(position) = self.undo.binary_search(before) {
            // Sorted, so that equal sets are equal configurations.
            self.undo.insert(position, before.clone());
        }
    }
}
