//! Violations in words.

use super::Violation;
use super::group_history::{Gathered, Source};
use super::linearize::{Effect, Sight};
use super::shrink::Small;
use crate::history::{ABSENT, Answer, Ask, History, NEVER, Request, read_shown};
use crate::schema::{Group, Layout, Version};

/// A line of a story: from when to when, and what.
pub fn line(start: u64, end: u64, text: &str) -> String {
    let ms = |time: u64| time as f64 / 1e6;
    if end == NEVER {
        format!("{:>11.3} ms …             {text}", ms(start))
    } else {
        format!("{:>11.3} – {:.3} ms  {text}", ms(start), ms(end))
    }
}

/// A request in a line.
pub fn request(layout: &Layout, request: &Request, writer: usize, sequence: usize) -> String {
    let version = Version::new(writer, sequence);
    let ask = match request.ask {
        Ask::Put => "PUT",
        Ask::Post => "POST",
        Ask::Delete => "DELETE",
        Ask::Garbage => "push that cannot be parsed,",
        Ask::Inconsistent => "push that contradicts itself,",
    };
    let what =
        match layout.class(request.group).map(|class| &class.slots_of_shape[usize::from(request.shape)]) {
            Some(slots) if request.ask != Ask::Delete => format!(" {version} with families {}", set(slots)),
            _ => format!(" (request {version})"),
        };
    let answer = match request.answer {
        Answer::Done => "done".to_owned(),
        Answer::Refused => "refused as inconsistent".to_owned(),
        Answer::Rejected => "refused".to_owned(),
        Answer::Unknown(status) => format!("status {status}, outcome unknown"),
        Answer::Lost => "no answer".to_owned(),
        Answer::NotSent => "not sent".to_owned(),
    };
    line(request.start, request.end, &format!("{ask} {}{what}: {answer}", request.group))
}

fn set(slots: &[usize]) -> String {
    if slots.len() > 12 {
        return format!("{{{} of them}}", slots.len());
    }
    let words: Vec<String> = slots.iter().map(ToString::to_string).collect();
    format!("{{{}}}", words.join(","))
}

/// The violation that a shrunken history shows.
pub fn violation(
    layout: &Layout,
    history: &History,
    group: Group,
    all: &Gathered,
    small: &Small,
) -> Violation {
    let story = small.needed.iter().map(|at| {
        let action = &all.actions[*at];
        match all.sources[*at] {
            Source::Crash => line(action.start, action.end, "the gateway is killed and started again"),
            Source::Request(version) => match history.request(version) {
                Some(sent) => request(layout, sent, version.writer(), version.sequence().unwrap_or_default()),
                None => String::new(),
            },
            Source::Scrape(scraper, _) => line(
                action.start,
                action.end,
                &format!("scrape by {scraper}: {}", state(group, &action.effect)),
            ),
        }
    });
    let mut story: Vec<String> = story.collect();
    story.push("no order of these (and of what else went on) leads to the last line".to_owned());
    Violation { kind: kind(history, all, small), group: Some(group.to_string()), story }
}

fn state(group: Group, effect: &Effect) -> String {
    match effect {
        Effect::See(None) => format!("{group} is not there"),
        Effect::See(Some(sight)) => {
            let seen = |slot: &u64| {
                read_shown(*slot).map_or_else(|| "-".to_owned(), |(version, _)| version.to_string())
            };
            let mut slots: Vec<String> = sight.slots.iter().take(12).map(seen).collect();
            if sight.slots.len() > slots.len() {
                slots.push("…".to_owned());
            }
            let (pushed, failed) = (f64::from_bits(sight.pushed), f64::from_bits(sight.failed));
            format!("{group} is [{}], pushed at {pushed:.6}, failed at {failed:.6}", slots.join(" "))
        }
        _ => String::new(),
    }
}

/// A name for what is wrong, by what the shrunken history is made of. The last action is the sight that does not fit.
fn kind(history: &History, all: &Gathered, small: &Small) -> &'static str {
    let Some((last, before)) = small.needed.split_last() else { return "stale" };
    let effects = || before.iter().map(|at| &all.actions[*at].effect);
    if effects().any(|effect| *effect == Effect::Crash) {
        return "lost in a kill";
    }
    let Effect::See(Some(sight)) = &all.actions[*last].effect else { return "lost push" };
    if time_ran_back(history, all, small, sight) {
        return "push time";
    }
    // Was a push that is shown taken away by a DELETE before?
    let ended = |shown: u64| {
        let (version, _) = read_shown(shown)?;
        history.request(version).map(|request| request.end)
    };
    let seen_at = all.actions[*last].end;
    let deleted = all.actions.iter().any(|action| {
        let older = |shown: &u64| ended(*shown).is_some_and(|end| end < action.start);
        action.effect == Effect::Delete
            && action.confirmed
            && action.end < seen_at
            && sight.slots.iter().any(older)
    });
    if deleted {
        return "revived group";
    }
    // Does one family show the newest push, and another one of the same push does not?
    let newest = sight.slots.iter().filter_map(|shown| read_shown(*shown)).map(|(version, _)| version);
    for version in newest {
        let half = all.sources.iter().zip(&all.actions).any(|(source, action)| match &action.effect {
            Effect::Set { replace, slots, .. } if *source == Source::Request(version) => {
                let misses = slots.iter().any(|(slot, shown)| {
                    let there = sight.slots[*slot];
                    there == ABSENT || (there != *shown && ended(there).is_some_and(|end| end < action.start))
                });
                let has_too_much = *replace
                    && sight.slots.iter().any(|shown| ended(*shown).is_some_and(|end| end < action.start));
                misses || has_too_much
            }
            _ => false,
        });
        if half {
            return "half a push";
        }
    }
    let same =
        effects().any(|effect| matches!(effect, Effect::See(Some(other)) if other.slots == sight.slots));
    let no_requests = effects().all(|effect| matches!(effect, Effect::See(_)));
    if same && no_requests { "push time" } else { "stale" }
}

fn time_ran_back(history: &History, all: &Gathered, small: &Small, sight: &Sight) -> bool {
    let deleted = small.needed.iter().any(|at| all.actions[*at].effect == Effect::Delete);
    let later = |at: &usize| match &all.actions[*at].effect {
        Effect::See(Some(other)) => f64::from_bits(other.pushed) > f64::from_bits(sight.pushed),
        _ => false,
    };
    !deleted && small.needed.iter().any(later) && {
        // Older content with an older time is stale, not a clock that runs backwards.
        small.needed.iter().all(|at| match &all.actions[*at].effect {
            Effect::See(Some(other)) => {
                let is_newer = |shown: &u64| {
                    let request = read_shown(*shown).and_then(|(version, _)| history.request(version));
                    request.is_some_and(|request| request.end > all.actions[*at].start)
                };
                other.slots == sight.slots
                    || f64::from_bits(other.pushed) <= f64::from_bits(sight.pushed)
                    || sight.slots.iter().any(is_newer)
            }
            _ => true,
        })
    }
}
