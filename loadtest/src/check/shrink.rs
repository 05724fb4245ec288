//! Shrinks a history that is not linearizable to a small part that still is not.
//!
//! Every step makes the history easier to explain, so a part that has no order proves that the whole has none. The steps:
//! drop what came after the failing observation; drop what came before some time, with an unknown state at that time; drop an
//! observation; let a request take effect at any time or never.

use super::linearize::{Action, Effect, InitialState, Verdict, decide};
use crate::history::NEVER;

/// Configurations kept while a smaller part is tried; a part that needs more is not used.
const CONFIGURATIONS_MAX: usize = 5_000;
/// Above this number of actions, only runs of actions are dropped, not single ones.
const SINGLE_ACTIONS_MAX: usize = 400;

/// A part of a history.
struct Part {
    actions: Vec<Action>,
    /// The index of each action in the whole history.
    indexes: Vec<usize>,
    /// Dropped requests, which may take effect at any time or never.
    unbound: Vec<Action>,
    initial: InitialState,
}

/// Shrinks a history in which no order explains the observation `failure`. Returns the indexes of the remaining actions in
/// order of time, `failure` last.
pub fn shrink(slot_count: usize, actions: &[Action], failure: usize) -> Vec<usize> {
    let mut part = until(actions, failure);
    if let Some(later) = latest_start(slot_count, &part) {
        part = later;
    }
    drop_actions(slot_count, &mut part, failure);
    let mut needed = part.indexes;
    needed.sort_unstable_by_key(|at| (*at == failure, actions[*at].start, *at));
    needed
}

fn is_violation(slot_count: usize, part: &Part) -> bool {
    let all: Vec<Action> = part.actions.iter().chain(&part.unbound).cloned().collect();
    matches!(decide(slot_count, &all, part.initial, CONFIGURATIONS_MAX), Verdict::Violation { .. })
}

/// The history without what came after the failing observation.
fn until(actions: &[Action], failure: usize) -> Part {
    let end = actions[failure].end;
    let mut part =
        Part { actions: Vec::new(), indexes: Vec::new(), unbound: Vec::new(), initial: InitialState::Absent };
    for (at, action) in actions.iter().enumerate().filter(|(_, action)| action.start <= end) {
        let mut action = action.clone();
        if action.end > end {
            if matches!(action.effect, Effect::Observe(_)) {
                continue;
            }
            (action.end, action.optional) = (NEVER, true);
        }
        part.actions.push(action);
        part.indexes.push(at);
    }
    part
}

/// The shortest violation that starts from an unknown state; `None` if there is none. Searches backwards in steps that double,
/// then by bisection.
fn latest_start(slot_count: usize, part: &Part) -> Option<Part> {
    let mut starts: Vec<u64> = part.actions.iter().map(|action| action.start).collect();
    starts.sort_unstable();
    let (mut failing, mut passing, mut step) = (0, starts.len(), 1);
    while step < starts.len() {
        let at = starts.len() - step;
        if is_violation(slot_count, &since(part, starts[at])) {
            failing = at;
            break;
        }
        passing = at;
        step *= 2;
    }
    while failing + 1 < passing {
        let middle = usize::midpoint(failing, passing);
        if is_violation(slot_count, &since(part, starts[middle])) {
            failing = middle;
        } else {
            passing = middle;
        }
    }
    let later = since(part, starts[failing]);
    is_violation(slot_count, &later).then_some(later)
}

/// The part without what had ended before `time`, from an unknown state.
fn since(part: &Part, time: u64) -> Part {
    let kept = part.actions.iter().zip(&part.indexes).filter(|(action, _)| action.end >= time);
    let (actions, indexes) = kept.map(|(action, at)| (action.clone(), *at)).unzip();
    let initial = InitialState::UnknownAt(time.saturating_sub(1));
    Part { actions, indexes, unbound: Vec::new(), initial }
}

/// Drops all actions that the violation does not need, long runs first.
fn drop_actions(slot_count: usize, part: &mut Part, failure: usize) {
    let mut run = part.actions.len() / 2;
    while run >= 1 {
        let mut at = 0;
        while at < part.actions.len() {
            let end = (at + run).min(part.actions.len());
            if let Some(smaller) = without(part, at, end, failure)
                && is_violation(slot_count, &smaller)
            {
                *part = smaller;
            } else {
                at = end;
            }
        }
        if run == 1 || part.actions.len() > SINGLE_ACTIONS_MAX {
            break;
        }
        run /= 2;
    }
}

/// The part without the observations from `begin` to `end`, and with its requests unbound; `None` if one of them must stay.
fn without(part: &Part, begin: usize, end: usize, failure: usize) -> Option<Part> {
    if part.indexes[begin..end].contains(&failure) {
        return None;
    }
    let mut smaller = Part {
        actions: Vec::new(),
        indexes: Vec::new(),
        unbound: part.unbound.clone(),
        initial: part.initial,
    };
    for (at, (action, index)) in part.actions.iter().zip(&part.indexes).enumerate() {
        if !(begin..end).contains(&at) {
            smaller.actions.push(action.clone());
            smaller.indexes.push(*index);
        }
    }
    for action in &part.actions[begin..end] {
        match &action.effect {
            Effect::Observe(_) => {}
            // A kill allows more than it forbids.
            Effect::Kill => return None,
            // The request may now take effect at any time. If that explains the failure, the request has to stay.
            _ => {
                let mut unbound = action.clone();
                (unbound.start, unbound.end, unbound.optional) = (0, NEVER, true);
                smaller.unbound.push(unbound);
            }
        }
    }
    Some(smaller)
}
