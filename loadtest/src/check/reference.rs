//! The engine beside a slow, obvious twin: all orders of a small history, one after the other.

use proptest::prelude::*;

use super::linearize::{Action, Beginning, Effect, Sight, Verdict, decide};
use crate::history::{ABSENT, NEVER};

const SLOTS: usize = 2;

/// A group, played by the book. Times are numbers of requests.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    there: bool,
    slots: Vec<u64>,
    pushed: u64,
    failed: u64,
}

impl Model {
    fn new() -> Self {
        Self { there: false, slots: vec![ABSENT; SLOTS], pushed: 0, failed: 0 }
    }

    fn apply(&mut self, effect: &Effect, time: u64) {
        match effect {
            Effect::Set { replace, slots, .. } => {
                if *replace {
                    self.slots.fill(ABSENT);
                }
                for (slot, shown) in slots {
                    self.slots[*slot] = *shown;
                }
                (self.there, self.pushed) = (true, time);
            }
            Effect::Delete => *self = Self::new(),
            Effect::Fail => (self.there, self.failed) = (true, time),
            Effect::See(_) | Effect::Crash => {}
        }
    }

    fn sight(&self) -> Effect {
        let sight = Sight { slots: self.slots.clone(), pushed: self.pushed, failed: self.failed };
        Effect::See(self.there.then_some(sight))
    }
}

/// Whether any order explains it. Push times: for each order the requests are given times as they were seen: a time
/// that is seen belongs to one request, and grows along the order.
fn explained(actions: &[Action]) -> bool {
    fn go(actions: &[Action], done: &mut Vec<usize>, left: &[usize]) -> bool {
        if left.iter().all(|at| actions[*at].optional) && fits(actions, done) {
            return true;
        }
        for (place, at) in left.iter().enumerate() {
            // Nothing that had ended before may come after it.
            if left.iter().any(|other| actions[*other].end < actions[*at].start && !actions[*other].optional)
            {
                continue;
            }
            if done.iter().any(|earlier| actions[*earlier].start > actions[*at].end) {
                continue;
            }
            let mut rest = left.to_vec();
            rest.remove(place);
            done.push(*at);
            if go(actions, done, &rest) {
                return true;
            }
            done.pop();
        }
        false
    }
    /// Plays an order; unknown times are taken from the sights that follow.
    fn fits(actions: &[Action], order: &[usize]) -> bool {
        let mut model = Model::new();
        let (mut latest_pushed, mut latest_failed) = (None::<u64>, None::<u64>);
        let (mut floor_pushed, mut floor_failed) = (0, 0);
        for at in order {
            match &actions[*at].effect {
                Effect::See(None) => {
                    if model.there {
                        return false;
                    }
                }
                Effect::See(Some(sight)) => {
                    if !model.there || model.slots != sight.slots {
                        return false;
                    }
                    let ok = |has: bool, latest: &mut Option<u64>, floor: &mut u64, seen: u64| {
                        if !has {
                            return seen == 0;
                        }
                        match latest {
                            Some(time) => *time == seen,
                            None => {
                                *latest = Some(seen);
                                let fine = seen != 0 && seen >= *floor;
                                *floor = seen;
                                fine
                            }
                        }
                    };
                    if !ok(model.pushed != 0, &mut latest_pushed, &mut floor_pushed, sight.pushed)
                        || !ok(model.failed != 0, &mut latest_failed, &mut floor_failed, sight.failed)
                    {
                        return false;
                    }
                }
                effect => {
                    match effect {
                        Effect::Set { .. } => latest_pushed = None,
                        Effect::Fail => latest_failed = None,
                        Effect::Delete => {
                            (latest_pushed, latest_failed, floor_pushed, floor_failed) = (None, None, 0, 0);
                        }
                        _ => {}
                    }
                    model.apply(effect, 1);
                }
            }
        }
        true
    }
    let all: Vec<usize> = (0..actions.len()).collect();
    go(actions, &mut Vec::new(), &all)
}

/// A plan: what is asked, how long it takes, whether an answer comes.
#[derive(Debug, Clone)]
enum Plan {
    Set(bool, u8),
    Delete,
    Fail,
    See,
}

fn plan() -> impl Strategy<Value = (Plan, u64, u64, u64, bool)> {
    let kind = prop_oneof![
        4 => (any::<bool>(), 0_u8..4).prop_map(|(replace, slots)| Plan::Set(replace, slots)),
        1 => Just(Plan::Delete),
        1 => Just(Plan::Fail),
        4 => Just(Plan::See),
    ];
    (kind, 0_u64..12, 1_u64..8, 0_u64..8, prop::bool::weighted(0.15))
}

/// A history of a correct gateway: each thing takes effect at a moment between its start and its end.
fn history(plans: &[(Plan, u64, u64, u64, bool)]) -> Vec<Action> {
    let mut moments: Vec<(u64, usize)> = plans
        .iter()
        .enumerate()
        .map(|(at, (_, start, length, inside, _))| (start * 10 + (inside % length) * 10 + 5, at))
        .collect();
    moments.sort_unstable();
    let mut model = Model::new();
    let mut actions: Vec<Option<Action>> = vec![None; plans.len()];
    for (time, (_, at)) in moments.into_iter().enumerate() {
        let (plan, start, length, inside, optional) = &plans[at];
        let effect = match plan {
            Plan::Set(replace, slots) => {
                let version = at as u64 + 1;
                let slots =
                    (0..SLOTS).filter(|slot| slots & (1 << slot) != 0).map(|slot| (slot, version)).collect();
                Effect::Set { replace: *replace, version, slots }
            }
            Plan::Delete => Effect::Delete,
            Plan::Fail => Effect::Fail,
            Plan::See => model.sight(),
        };
        let optional = *optional && !matches!(plan, Plan::See);
        // Half of those without an answer did not happen.
        if !optional || inside % 2 == 0 {
            model.apply(&effect, time as u64 + 100);
        }
        actions[at] = Some(Action {
            start: start * 10,
            end: (start + length) * 10,
            effect,
            optional,
            confirmed: !optional,
        });
    }
    actions.into_iter().flatten().collect()
}

fn engine_says(actions: &[Action]) -> bool {
    matches!(decide(SLOTS, actions, Beginning::Nothing, 1_000_000), Verdict::Fine { undecided: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_gateway_is_never_accused(plans in prop::collection::vec(plan(), 0..14)) {
        prop_assert!(engine_says(&history(&plans)));
    }

    #[test]
    fn the_engine_agrees_with_its_slow_twin(
        plans in prop::collection::vec(plan(), 0..7),
        victim in any::<prop::sample::Index>(),
        change in 0_u8..5,
    ) {
        let mut actions = history(&plans);
        let states: Vec<_> = actions.iter().filter_map(|action| match &action.effect {
            Effect::See(sight) => Some(sight.clone()),
            _ => None,
        }).collect();
        if !actions.is_empty() {
            let at = victim.index(actions.len());
            if let Effect::See(sight) = &mut actions[at].effect {
                match (change, sight) {
                    (0, sight) => *sight = None,
                    (1, Some(sight)) => sight.pushed += 1,
                    (2, Some(sight)) => sight.slots[0] = ABSENT,
                    (3, sight) => *sight = states[victim.index(states.len())].clone(),
                    (4, Some(sight)) => sight.failed = 0,
                    _ => {}
                }
            } else if change == 0 {
                actions[at].effect = Effect::Delete;
            }
        }
        prop_assert_eq!(engine_says(&actions), explained(&actions), "{:#?}", actions);
    }
}

fn act(start: u64, end: u64, effect: Effect) -> Action {
    let optional = end == NEVER;
    Action { start, end, effect, optional, confirmed: !optional }
}

fn put(start: u64, end: u64, version: u64) -> Action {
    act(start, end, Effect::Set { replace: true, version, slots: vec![(0, version), (1, version)] })
}

fn post(start: u64, end: u64, version: u64) -> Action {
    act(start, end, Effect::Set { replace: false, version, slots: vec![(1, version)] })
}

fn see(start: u64, end: u64, slots: [u64; 2], pushed: u64) -> Action {
    act(start, end, Effect::See(Some(Sight { slots: slots.to_vec(), pushed, failed: 0 })))
}

fn gone(start: u64, end: u64) -> Action {
    act(start, end, Effect::See(None))
}

#[test]
fn good_histories_by_hand() {
    let good: [&[Action]; 6] = [
        &[put(0, 10, 1), see(20, 30, [1, 1], 5), post(40, 50, 2), see(60, 70, [1, 2], 6)],
        // Two at once: either may win.
        &[put(0, 10, 1), put(5, 15, 2), see(20, 30, [1, 1], 5)],
        // No answer: it may come late, or never.
        &[put(0, NEVER, 1), gone(10, 20), see(30, 40, [1, 1], 5)],
        &[put(0, 10, 1), put(11, NEVER, 2), see(30, 40, [1, 1], 5)],
        // Gone in a kill, because nobody had been told of it.
        &[
            put(0, 10, 1),
            put(11, 29, 2).unanswered(),
            see(15, 20, [2, 2], 6),
            act(30, 30, Effect::Crash),
            see(40, 50, [1, 1], 5),
        ],
        &[put(0, 10, 1), act(20, 30, Effect::Delete), gone(25, 28), put(31, 40, 2), see(41, 50, [2, 2], 9)],
    ];
    for (at, actions) in good.iter().enumerate() {
        assert!(engine_says(actions), "history {at}");
    }
}

#[test]
fn bad_histories_by_hand() {
    let bad: [&[Action]; 8] = [
        // Lost, stale, half of one and half of the other, revived.
        &[put(0, 10, 1), gone(20, 30)],
        &[put(0, 10, 1), put(11, 20, 2), see(21, 30, [1, 1], 5)],
        &[put(0, 10, 1), put(11, 30, 2), see(15, 20, [1, 2], 5)],
        &[put(0, 10, 1), act(11, 20, Effect::Delete), see(21, 30, [1, 1], 5)],
        // There and back again.
        &[
            put(0, 100, 1),
            put(0, 100, 2),
            see(1, 10, [1, 1], 5),
            see(11, 20, [2, 2], 6),
            see(21, 30, [1, 1], 5),
        ],
        // A time that changes by itself, and one that runs backwards.
        &[put(0, 10, 1), see(11, 20, [1, 1], 5), see(21, 30, [1, 1], 6)],
        &[put(0, 10, 1), see(11, 20, [1, 1], 5), post(21, 30, 2), see(31, 40, [1, 2], 4)],
        // An answer had come, and the kill took it.
        &[put(0, 10, 1), put(11, 20, 2), act(30, 30, Effect::Crash), see(40, 50, [1, 1], 5)],
    ];
    for (at, actions) in bad.iter().enumerate() {
        assert!(!engine_says(actions), "history {at}");
    }
}

#[test]
fn too_much_at_once_is_undecided_not_accused() {
    let mut actions: Vec<Action> = (1..30).map(|version| post(0, 1000, version)).collect();
    actions.push(see(500, 2000, [ABSENT, 7], 5));
    actions.push(see(1500, 2000, [ABSENT, 8], 5));
    let verdict = decide(SLOTS, &actions, Beginning::Nothing, 10);
    assert!(matches!(verdict, Verdict::Fine { undecided: 1.. }), "{verdict:?}");
}

#[test]
fn what_is_shrunk_is_wrong_and_small() {
    let mut actions: Vec<Action> = (0..300).map(|at| put(at * 10, at * 10 + 5, at + 1)).collect();
    for at in 0..300 {
        actions.push(see(at * 10 + 6, at * 10 + 9, [at + 1, at + 1], at + 1));
    }
    // The last but one comes back.
    actions.push(see(4000, 4010, [299, 299], 299));
    let Verdict::Wrong { action } = decide(SLOTS, &actions, Beginning::Nothing, 1000) else {
        panic!("a stale sight passes")
    };
    let small = super::shrink::shrink(SLOTS, &actions, action);
    assert_eq!(small.needed.last(), Some(&action));
    assert!(small.needed.len() <= 3, "{:?}", small.needed);
}

impl Action {
    fn unanswered(mut self) -> Self {
        (self.optional, self.confirmed) = (true, false);
        self
    }
}
