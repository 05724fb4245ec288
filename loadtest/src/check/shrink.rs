//! The smallest part of a wrong history that still is wrong.
//!
//! Only such steps are taken that make the history easier to explain: what is wrong afterwards was wrong before.
//! What came after the failure goes. What came before some moment goes, with nothing known about the state at that
//! moment. A sight goes. A request that may have happened at any time, or not at all, without explaining anything, goes.

use super::linearize::{Action, Beginning, Effect, Verdict, decide};
use crate::history::NEVER;

/// Ways followed while trying to leave something out; if it is more, it stays.
const WAYS_MAX: usize = 5_000;
/// Actions beyond which only halves are tried, not each by itself.
const ACTIONS_MAX: usize = 400;

/// Which actions are needed; the last is the sight that does not fit.
pub struct Small {
    /// Indexes into the history that was given.
    pub needed: Vec<usize>,
}

struct Part {
    actions: Vec<Action>,
    /// Index in the whole history.
    from: Vec<usize>,
    /// Requests left out, which may have happened at any time.
    free: Vec<Action>,
    beginning: Beginning,
}

/// Shrinks a history that is wrong at the action `failure`.
pub fn shrink(slots: usize, actions: &[Action], failure: usize) -> Small {
    let mut part = before(actions, failure);
    // The latest beginning: from behind in steps that double, then by halves.
    let mut starts: Vec<u64> = part.actions.iter().map(|action| action.start).collect();
    starts.sort_unstable();
    let (mut bad, mut step) = (0, 1);
    let mut good = starts.len();
    while step < starts.len() {
        let at = starts.len() - step;
        if wrong(slots, &since(&part, starts[at])) {
            bad = at;
            break;
        }
        good = at;
        step *= 2;
    }
    while bad + 1 < good {
        let middle = usize::midpoint(bad, good);
        if wrong(slots, &since(&part, starts[middle])) {
            bad = middle;
        } else {
            good = middle;
        }
    }
    let later = since(&part, starts[bad]);
    if wrong(slots, &later) {
        part = later;
    }
    leave_out(slots, &mut part, failure);
    let mut needed = part.from;
    needed.sort_unstable_by_key(|at| (*at == failure, actions[*at].start, *at));
    Small { needed }
}

fn wrong(slots: usize, part: &Part) -> bool {
    let all: Vec<Action> = part.actions.iter().chain(&part.free).cloned().collect();
    matches!(decide(slots, &all, part.beginning, WAYS_MAX), Verdict::Wrong { .. })
}

/// Without what came after the failing sight.
fn before(actions: &[Action], failure: usize) -> Part {
    let end = actions[failure].end;
    let mut part =
        Part { actions: Vec::new(), from: Vec::new(), free: Vec::new(), beginning: Beginning::Nothing };
    for (at, action) in actions.iter().enumerate().filter(|(_, action)| action.start <= end) {
        let mut action = action.clone();
        if action.end > end {
            if matches!(action.effect, Effect::See(_)) {
                continue;
            }
            (action.end, action.optional) = (NEVER, true);
        }
        part.actions.push(action);
        part.from.push(at);
    }
    part
}

/// Without what had ended before `time`, and with nothing known about the state then.
fn since(part: &Part, time: u64) -> Part {
    let kept = part.actions.iter().zip(&part.from).filter(|(action, _)| action.end >= time);
    let (actions, from) = kept.map(|(action, from)| (action.clone(), *from)).unzip();
    Part { actions, from, free: Vec::new(), beginning: Beginning::Unknown(time.saturating_sub(1)) }
}

fn leave_out(slots: usize, part: &mut Part, failure: usize) {
    // In runs first, so that long histories get short soon.
    let mut run = part.actions.len() / 2;
    while run >= 1 {
        let mut at = 0;
        while at < part.actions.len() {
            let end = (at + run).min(part.actions.len());
            if let Some(smaller) = without(part, at, end, failure)
                && wrong(slots, &smaller)
            {
                *part = smaller;
            } else {
                at = end;
            }
        }
        if run == 1 || part.actions.len() > ACTIONS_MAX {
            break;
        }
        run /= 2;
    }
}

/// The part without the sights of a range, and with its requests set free, if those can then be left out.
fn without(part: &Part, begin: usize, end: usize, failure: usize) -> Option<Part> {
    if part.from[begin..end].contains(&failure) {
        return None;
    }
    let mut smaller =
        Part { actions: Vec::new(), from: Vec::new(), free: part.free.clone(), beginning: part.beginning };
    for (at, (action, from)) in part.actions.iter().zip(&part.from).enumerate() {
        if !(begin..end).contains(&at) {
            smaller.actions.push(action.clone());
            smaller.from.push(*from);
        }
    }
    for action in &part.actions[begin..end] {
        match &action.effect {
            Effect::See(_) => {}
            // A crash allows more than it forbids.
            Effect::Crash => return None,
            // It may stand anywhere now; so if it helps to explain anything, it has to stay.
            _ => {
                let mut free = action.clone();
                (free.start, free.end, free.optional) = (0, NEVER, true);
                smaller.free.push(free);
            }
        }
    }
    Some(smaller)
}
