//! Tests [`decide`] and [`shrink`] with histories written by hand, and against a reference implementation that tries all orders
//! of a small history.

use proptest::prelude::*;

use super::linearize::{Action, Effect, InitialState, Verdict, decide};
use super::shrink::shrink;
use super::state::ObservedState;
use crate::history::{ABSENT, NEVER};

const SLOTS: usize = 2;

/// A group as the rules of PUT, POST and DELETE define it.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    exists: bool,
    slots: Vec<u64>,
    pushed: u64,
    failed: u64,
}

impl Model {
    fn new() -> Self {
        Self { exists: false, slots: vec![ABSENT; SLOTS], pushed: 0, failed: 0 }
    }

    fn apply(&mut self, effect: &Effect, time: u64) {
        match effect {
            Effect::Push { replaces_group, slots } => {
                if *replaces_group {
                    self.slots.fill(ABSENT);
                }
                for (slot, value) in slots {
                    self.slots[*slot] = *value;
                }
                (self.exists, self.pushed) = (true, time);
            }
            Effect::Delete => *self = Self::new(),
            Effect::Reject => (self.exists, self.failed) = (true, time),
            Effect::Observe(_) | Effect::Kill => {}
        }
    }

    fn observe(&self) -> Effect {
        let state = ObservedState { slots: self.slots.clone(), pushed: self.pushed, failed: self.failed };
        Effect::Observe(self.exists.then_some(state))
    }
}

/// A push time or failure time in the reference implementation: the observed one, and the least possible one.
#[derive(Default)]
struct ReferenceTime {
    observed: Option<u64>,
    min: u64,
}

impl ReferenceTime {
    /// Whether an observed time agrees; `is_set` tells whether any request has set the time.
    fn accepts(&mut self, is_set: bool, observed: u64) -> bool {
        if !is_set {
            return observed == 0;
        }
        if let Some(known) = self.observed {
            return known == observed;
        }
        let fits = observed != 0 && observed >= self.min;
        (self.observed, self.min) = (Some(observed), observed);
        fits
    }
}

/// The reference implementation: whether any order of the actions explains all observations.
fn has_explaining_order(actions: &[Action]) -> bool {
    let all: Vec<usize> = (0..actions.len()).collect();
    extends_to_order(actions, &mut Vec::new(), &all)
}

/// Tries all orders that begin with `order` and continue with `left`.
fn extends_to_order(actions: &[Action], order: &mut Vec<usize>, left: &[usize]) -> bool {
    if left.iter().all(|at| actions[*at].optional) && explains_observations(actions, order) {
        return true;
    }
    for (position, at) in left.iter().enumerate() {
        // An action that ended before this one started must come first.
        let must_wait =
            left.iter().any(|other| actions[*other].end < actions[*at].start && !actions[*other].optional);
        if must_wait || order.iter().any(|earlier| actions[*earlier].start > actions[*at].end) {
            continue;
        }
        let mut rest = left.to_vec();
        rest.remove(position);
        order.push(*at);
        if extends_to_order(actions, order, &rest) {
            return true;
        }
        order.pop();
    }
    false
}

/// Applies the actions in an order. Times that the order does not determine come from the observations.
fn explains_observations(actions: &[Action], order: &[usize]) -> bool {
    let mut model = Model::new();
    let (mut pushed, mut failed) = (ReferenceTime::default(), ReferenceTime::default());
    for at in order {
        let effect = &actions[*at].effect;
        match effect {
            Effect::Observe(None) => {
                if model.exists {
                    return false;
                }
            }
            Effect::Observe(Some(state)) => {
                let fits = model.exists
                    && model.slots == state.slots
                    && pushed.accepts(model.pushed != 0, state.pushed)
                    && failed.accepts(model.failed != 0, state.failed);
                if !fits {
                    return false;
                }
            }
            Effect::Push { .. } => pushed.observed = None,
            Effect::Reject => failed.observed = None,
            Effect::Delete => (pushed, failed) = (ReferenceTime::default(), ReferenceTime::default()),
            Effect::Kill => {}
        }
        model.apply(effect, 1);
    }
    true
}

/// An action of a generated history.
#[derive(Debug, Clone)]
struct Step {
    kind: StepKind,
    start: u64,
    length: u64,
    /// When it takes effect, modulo `length`.
    effect_offset: u64,
    is_unanswered: bool,
}

#[derive(Debug, Clone)]
enum StepKind {
    Push { replaces_group: bool, slot_bits: u8 },
    Delete,
    Reject,
    Observe,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        4 => (any::<bool>(), 0_u8..4)
            .prop_map(|(replaces_group, slot_bits)| StepKind::Push { replaces_group, slot_bits }),
        1 => Just(StepKind::Delete),
        1 => Just(StepKind::Reject),
        4 => Just(StepKind::Observe),
    ];
    (kind, 0_u64..12, 1_u64..8, 0_u64..8, prop::bool::weighted(0.15)).prop_map(
        |(kind, start, length, effect_offset, is_unanswered)| Step {
            kind,
            start,
            length,
            effect_offset,
            is_unanswered,
        },
    )
}

/// The history of a correct gateway: each step takes effect at one time between its start and its end.
fn correct_history(steps: &[Step]) -> Vec<Action> {
    let effect_time = |step: &Step| step.start * 10 + (step.effect_offset % step.length) * 10 + 5;
    let mut order: Vec<(u64, usize)> =
        steps.iter().enumerate().map(|(at, step)| (effect_time(step), at)).collect();
    order.sort_unstable();
    let mut model = Model::new();
    let mut actions: Vec<Option<Action>> = vec![None; steps.len()];
    for (time, (_, at)) in order.into_iter().enumerate() {
        let step = &steps[at];
        let effect = match step.kind {
            StepKind::Push { replaces_group, slot_bits } => {
                let value = at as u64 + 1;
                let slots = (0..SLOTS).filter(|slot| slot_bits & (1 << slot) != 0);
                Effect::Push { replaces_group, slots: slots.map(|slot| (slot, value)).collect() }
            }
            StepKind::Delete => Effect::Delete,
            StepKind::Reject => Effect::Reject,
            StepKind::Observe => model.observe(),
        };
        let optional = step.is_unanswered && !matches!(step.kind, StepKind::Observe);
        // Half of the requests without a response do not take effect.
        if !optional || step.effect_offset.is_multiple_of(2) {
            model.apply(&effect, time as u64 + 100);
        }
        let (start, end) = (step.start * 10, (step.start + step.length) * 10);
        actions[at] = Some(Action { start, end, effect, optional, acknowledged: !optional });
    }
    actions.into_iter().flatten().collect()
}

fn is_linearizable(actions: &[Action]) -> bool {
    let verdict = decide(SLOTS, actions, InitialState::Absent, 1_000_000);
    matches!(verdict, Verdict::Linearizable { undecided: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepts_every_history_of_a_correct_gateway(steps in prop::collection::vec(step(), 0..14)) {
        prop_assert!(is_linearizable(&correct_history(&steps)));
    }

    #[test]
    fn agrees_with_the_reference_implementation(
        steps in prop::collection::vec(step(), 0..7),
        victim in any::<prop::sample::Index>(),
        change in 0_u8..5,
    ) {
        let mut actions = correct_history(&steps);
        let states: Vec<_> = actions.iter().filter_map(|action| match &action.effect {
            Effect::Observe(state) => Some(state.clone()),
            _ => None,
        }).collect();
        if !actions.is_empty() {
            let at = victim.index(actions.len());
            if let Effect::Observe(state) = &mut actions[at].effect {
                match (change, state) {
                    (0, state) => *state = None,
                    (1, Some(state)) => state.pushed += 1,
                    (2, Some(state)) => state.slots[0] = ABSENT,
                    (3, state) => *state = states[victim.index(states.len())].clone(),
                    (4, Some(state)) => state.failed = 0,
                    _ => {}
                }
            } else if change == 0 {
                actions[at].effect = Effect::Delete;
            }
        }
        prop_assert_eq!(is_linearizable(&actions), has_explaining_order(&actions), "{:#?}", actions);
    }
}

fn action(start: u64, end: u64, effect: Effect) -> Action {
    let optional = end == NEVER;
    Action { start, end, effect, optional, acknowledged: !optional }
}

fn put(start: u64, end: u64, value: u64) -> Action {
    action(start, end, Effect::Push { replaces_group: true, slots: vec![(0, value), (1, value)] })
}

fn post(start: u64, end: u64, value: u64) -> Action {
    action(start, end, Effect::Push { replaces_group: false, slots: vec![(1, value)] })
}

fn observe(start: u64, end: u64, slots: [u64; SLOTS], pushed: u64) -> Action {
    let state = ObservedState { slots: slots.to_vec(), pushed, failed: 0 };
    action(start, end, Effect::Observe(Some(state)))
}

fn observe_absence(start: u64, end: u64) -> Action {
    action(start, end, Effect::Observe(None))
}

fn unanswered(mut action: Action) -> Action {
    (action.optional, action.acknowledged) = (true, false);
    action
}

#[test]
fn accepts_correct_histories_written_by_hand() {
    let correct: [(&str, &[Action]); 6] = [
        (
            "one after the other",
            &[put(0, 10, 1), observe(20, 30, [1, 1], 5), post(40, 50, 2), observe(60, 70, [1, 2], 6)],
        ),
        ("two at once, either may be last", &[put(0, 10, 1), put(5, 15, 2), observe(20, 30, [1, 1], 5)]),
        (
            "no response, takes effect late",
            &[put(0, NEVER, 1), observe_absence(10, 20), observe(30, 40, [1, 1], 5)],
        ),
        ("no response, no effect", &[put(0, 10, 1), put(11, NEVER, 2), observe(30, 40, [1, 1], 5)]),
        (
            "a kill may lose what was not acknowledged",
            &[
                put(0, 10, 1),
                unanswered(put(11, 29, 2)),
                observe(15, 20, [2, 2], 6),
                action(30, 30, Effect::Kill),
                observe(40, 50, [1, 1], 5),
            ],
        ),
        (
            "deleted and pushed again",
            &[
                put(0, 10, 1),
                action(20, 30, Effect::Delete),
                observe_absence(25, 28),
                put(31, 40, 2),
                observe(41, 50, [2, 2], 9),
            ],
        ),
    ];
    for (name, actions) in correct {
        assert!(is_linearizable(actions), "{name}");
    }
}

#[test]
fn rejects_wrong_histories_written_by_hand() {
    let wrong: [(&str, &[Action]); 8] = [
        ("a lost push", &[put(0, 10, 1), observe_absence(20, 30)]),
        ("a stale state", &[put(0, 10, 1), put(11, 20, 2), observe(21, 30, [1, 1], 5)]),
        ("halves of two pushes", &[put(0, 10, 1), put(11, 30, 2), observe(15, 20, [1, 2], 5)]),
        ("a revived group", &[put(0, 10, 1), action(11, 20, Effect::Delete), observe(21, 30, [1, 1], 5)]),
        (
            "a push that comes back",
            &[
                put(0, 100, 1),
                put(0, 100, 2),
                observe(1, 10, [1, 1], 5),
                observe(11, 20, [2, 2], 6),
                observe(21, 30, [1, 1], 5),
            ],
        ),
        (
            "a push time that changes without a push",
            &[put(0, 10, 1), observe(11, 20, [1, 1], 5), observe(21, 30, [1, 1], 6)],
        ),
        (
            "a push time that goes back",
            &[put(0, 10, 1), observe(11, 20, [1, 1], 5), post(21, 30, 2), observe(31, 40, [1, 2], 4)],
        ),
        (
            "an acknowledged push that a kill lost",
            &[put(0, 10, 1), put(11, 20, 2), action(30, 30, Effect::Kill), observe(40, 50, [1, 1], 5)],
        ),
    ];
    for (name, actions) in wrong {
        assert!(!is_linearizable(actions), "{name}");
    }
}

#[test]
fn too_many_orders_are_undecided_and_no_violation() {
    let mut actions: Vec<Action> = (1..30).map(|value| post(0, 1000, value)).collect();
    actions.push(observe(500, 2000, [ABSENT, 7], 5));
    actions.push(observe(1500, 2000, [ABSENT, 8], 5));
    let verdict = decide(SLOTS, &actions, InitialState::Absent, 10);
    assert!(matches!(verdict, Verdict::Linearizable { undecided: 1.. }), "{verdict:?}");
}

#[test]
fn a_shrunk_history_is_small_and_ends_with_the_failure() {
    let mut actions: Vec<Action> = (0..300).map(|at| put(at * 10, at * 10 + 5, at + 1)).collect();
    for at in 0..300 {
        actions.push(observe(at * 10 + 6, at * 10 + 9, [at + 1, at + 1], at + 1));
    }
    // The last push but one comes back.
    actions.push(observe(4000, 4010, [299, 299], 299));
    let Verdict::Violation { action } = decide(SLOTS, &actions, InitialState::Absent, 1000) else {
        panic!("a stale state passes")
    };
    let needed = shrink(SLOTS, &actions, action);
    assert_eq!(needed.last(), Some(&action));
    assert!(needed.len() <= 3, "{needed:?}");
}
