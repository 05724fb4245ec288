//! Describes violations: one line per request or scrape, and a kind that names what went wrong.

use super::group_history::{GroupHistory, Source};
use super::linearize::Effect;
use super::state::ObservedState;
use crate::history::{ABSENT, History, NEVER, Operation, Outcome, Request, unpack_slot};
use crate::schema::{GroupId, PushId, Schema};
use crate::violation::{Violation, ViolationKind};

/// Slots of a state or a push that a line shows.
const SLOTS_MAX: usize = 12;

/// A line of a story: the time and a text.
pub fn line(start: u64, end: u64, text: &str) -> String {
    let ms = |time: u64| time as f64 / 1e6;
    if end == NEVER {
        format!("{:>11.3} ms …             {text}", ms(start))
    } else {
        format!("{:>11.3} – {:.3} ms  {text}", ms(start), ms(end))
    }
}

/// The line of a request.
pub fn request(schema: &Schema, request: &Request, writer: usize, sequence: usize) -> String {
    let push = PushId::new(writer, sequence);
    let operation = match request.operation {
        Operation::Put => "PUT",
        Operation::Post => "POST",
        Operation::Delete => "DELETE",
        Operation::Malformed => "malformed push",
        Operation::Inconsistent => "inconsistent push",
    };
    let content = match schema.class(request.group) {
        Some(class) if request.operation != Operation::Delete => {
            format!("{push} with families {}", slot_set(&class.slots_of_shape[usize::from(request.shape)]))
        }
        _ => format!("(request {push})"),
    };
    let outcome = match request.outcome {
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Inconsistent => "rejected as inconsistent".to_owned(),
        Outcome::Rejected => "rejected".to_owned(),
        Outcome::Unknown(status) => format!("status {status}, effect unknown"),
        Outcome::Lost => "no response".to_owned(),
        Outcome::NotSent => "not sent".to_owned(),
    };
    line(request.start, request.end, &format!("{operation} {} {content}: {outcome}", request.group))
}

fn slot_set(slots: &[usize]) -> String {
    if slots.len() > SLOTS_MAX {
        return format!("{{{} families}}", slots.len());
    }
    let numbers: Vec<String> = slots.iter().map(ToString::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// The violation that a shrunk history proves. `needed` are its actions in order of time; the last one is the observation that
/// no order explains.
pub fn violation(
    schema: &Schema,
    history: &History,
    group: GroupId,
    all: &GroupHistory,
    needed: &[usize],
) -> Violation {
    let lines = needed.iter().map(|at| {
        let action = &all.actions[*at];
        match all.sources[*at] {
            Source::Kill => line(action.start, action.end, "the gateway is killed and restarted"),
            Source::Request(push) => match history.request(push) {
                Some(sent) => request(schema, sent, push.writer(), push.sequence().unwrap_or_default()),
                None => String::new(),
            },
            Source::Scraper(scraper) => {
                let text = format!("scrape by {scraper}: {}", observation(group, &action.effect));
                line(action.start, action.end, &text)
            }
        }
    });
    let mut story: Vec<String> = lines.collect();
    story.push("no order of these and the other requests explains the last line".to_owned());
    Violation { kind: kind(history, all, needed), group: Some(group.to_string()), story }
}

fn observation(group: GroupId, effect: &Effect) -> String {
    match effect {
        Effect::Observe(None) => format!("{group} is absent"),
        Effect::Observe(Some(state)) => {
            let value =
                |slot: &u64| unpack_slot(*slot).map_or_else(|| "-".to_owned(), |(push, _)| push.to_string());
            let mut slots: Vec<String> = state.slots.iter().take(SLOTS_MAX).map(value).collect();
            if state.slots.len() > slots.len() {
                slots.push("…".to_owned());
            }
            let (pushed, failed) = (f64::from_bits(state.pushed), f64::from_bits(state.failed));
            let slots = slots.join(" ");
            format!("{group} is [{slots}], push time {pushed:.6}, failure time {failed:.6}")
        }
        _ => String::new(),
    }
}

/// The kind of a violation, judged by the actions in the shrunk history.
fn kind(history: &History, all: &GroupHistory, needed: &[usize]) -> ViolationKind {
    let Some((last, before)) = needed.split_last() else { return ViolationKind::StaleState };
    let effects = || before.iter().map(|at| &all.actions[*at].effect);
    if effects().any(|effect| *effect == Effect::Kill) {
        return ViolationKind::LostAfterKill;
    }
    let last = &all.actions[*last];
    let Effect::Observe(Some(state)) = &last.effect else { return ViolationKind::LostPush };
    if push_time_went_back(history, all, needed, state) {
        return ViolationKind::WrongPushTime;
    }
    if shows_deleted_push(history, all, state, last.end) {
        return ViolationKind::RevivedGroup;
    }
    if shows_part_of_push(history, all, state) {
        return ViolationKind::PartialPush;
    }
    let same_content =
        effects().any(|effect| matches!(effect, Effect::Observe(Some(other)) if other.slots == state.slots));
    let no_requests = effects().all(|effect| matches!(effect, Effect::Observe(_)));
    if same_content && no_requests { ViolationKind::WrongPushTime } else { ViolationKind::StaleState }
}

/// When the push of a slot value ended; `None` without a push.
fn end_of_push(history: &History, slot: u64) -> Option<u64> {
    let (push, _) = unpack_slot(slot)?;
    history.request(push).map(|request| request.end)
}

/// Whether the push of some slot ended before `time`.
fn has_slot_from_before(history: &History, slots: &[u64], time: u64) -> bool {
    slots.iter().any(|slot| end_of_push(history, *slot).is_some_and(|end| end < time))
}

/// Whether a state that was observed until `observed_at` shows a push that an acknowledged DELETE had removed.
fn shows_deleted_push(
    history: &History,
    all: &GroupHistory,
    state: &ObservedState,
    observed_at: u64,
) -> bool {
    all.actions.iter().any(|action| {
        action.effect == Effect::Delete
            && action.acknowledged
            && action.end < observed_at
            && has_slot_from_before(history, &state.slots, action.start)
    })
}

/// Whether some family shows a push, and another family does not show the same push although it must.
fn shows_part_of_push(history: &History, all: &GroupHistory, state: &ObservedState) -> bool {
    let shown = || state.slots.iter().filter_map(|slot| unpack_slot(*slot)).map(|(push, _)| push);
    all.sources.iter().zip(&all.actions).any(|(source, action)| {
        let Source::Request(push) = source else { return false };
        let Effect::Push { replaces_group, slots } = &action.effect else { return false };
        if !shown().any(|other| other == *push) {
            return false;
        }
        let is_missing = |(slot, value): &(usize, u64)| {
            let other = state.slots[*slot];
            let is_older = || end_of_push(history, other).is_some_and(|end| end < action.start);
            other == ABSENT || (other != *value && is_older())
        };
        let keeps_older = || *replaces_group && has_slot_from_before(history, &state.slots, action.start);
        slots.iter().any(is_missing) || keeps_older()
    })
}

/// Whether the push time is smaller than one observed before, although no DELETE came between and the content is not older.
fn push_time_went_back(
    history: &History,
    all: &GroupHistory,
    needed: &[usize],
    state: &ObservedState,
) -> bool {
    let pushed = f64::from_bits(state.pushed);
    let effects = || needed.iter().map(|at| &all.actions[*at].effect);
    if effects().any(|effect| *effect == Effect::Delete) {
        return false;
    }
    let mut has_later_time = false;
    for at in needed {
        let action = &all.actions[*at];
        let Effect::Observe(Some(other)) = &action.effect else { continue };
        if f64::from_bits(other.pushed) <= pushed {
            continue;
        }
        has_later_time = true;
        // Older content with an older time is a stale state, not a time that went back.
        let is_newer = |slot: &u64| end_of_push(history, *slot).is_some_and(|end| end > action.start);
        if other.slots != state.slots && !state.slots.iter().any(is_newer) {
            return false;
        }
    }
    has_later_time
}
