//! Is a scrape one moment for all groups? Each group alone may be true, and the scrape still show a push to one group but
//! not an earlier one to another, which had been answered before.

use std::collections::HashMap;

use super::group_history::Index;
use super::{Findings, Violation, explain};
use crate::history::{Answer, Ask, NEVER, Request, Sight, read_shown};
use crate::schema::{Group, Layout, Version};

/// What a sight says about the moment of its scrape.
#[derive(Clone, Copy)]
struct Bounds {
    /// Not before this push began, which it shows.
    low: Option<(u64, Version)>,
    /// Not after this one was answered, which it does not show.
    high: Option<(u64, Version)>,
}

/// Counts the scrapes that are not one moment.
pub fn check(index: &Index<'_>, layout: &Layout, findings: &mut Findings) {
    let mut known: HashMap<Group, Vec<(Version, &Request)>> = HashMap::new();
    for (scraper, scrapes) in index.history.scrapes.iter().enumerate() {
        let mut bounds = vec![Bounds { low: None, high: None }; scrapes.times.len()];
        for sight in &scrapes.sights {
            let requests = known.entry(sight.group).or_insert_with(|| {
                let mut requests: Vec<_> = index.requests(sight.group).collect();
                requests.sort_unstable_by_key(|(_, request)| request.start);
                requests
            });
            let own = of_sight(index, layout, scraper, sight, requests);
            for at in &mut bounds[sight.first as usize..=sight.last as usize] {
                at.low = at.low.max(own.low);
                at.high = match (at.high, own.high) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
        for (at, bounds) in bounds.iter().enumerate() {
            let (Some(low), Some(high)) = (bounds.low, bounds.high) else { continue };
            if low.0 <= high.0 {
                continue;
            }
            findings.torn_scrapes += 1;
            if findings.torn_scrape.is_none() {
                let scrape = scrapes.times[at];
                let tell = |version: Version| {
                    let request = index.history.request(version).expect("it was indexed");
                    explain::request(
                        layout,
                        request,
                        version.writer(),
                        version.sequence().unwrap_or_default(),
                    )
                };
                let text = format!("scrape: shows push {}, but not push {}", low.1, high.1);
                let story = vec![tell(high.1), tell(low.1), explain::line(scrape.start, scrape.end, &text)];
                findings.torn_scrape = Some(Violation { kind: "torn scrape", group: None, story });
            }
        }
    }
}

fn of_sight(
    index: &Index<'_>,
    layout: &Layout,
    scraper: usize,
    sight: &Sight,
    requests: &[(Version, &Request)],
) -> Bounds {
    let mut bounds = Bounds { low: None, high: None };
    let Some(class) = layout.class(sight.group) else { return bounds };
    for (slot, seen) in index.history.scrapes[scraper].slots(sight, class.slots).iter().enumerate() {
        let Some((version, _)) = read_shown(*seen) else { continue };
        let Some(shown) = index.history.request(version).filter(|shown| shown.group == sight.group) else {
            continue;
        };
        bounds.low = bounds.low.max(Some((shown.start, version)));
        if shown.end == NEVER {
            continue;
        }
        let mut high = bounds.high;
        let from = requests.partition_point(|(_, request)| request.start <= shown.end);
        for (version, request) in &requests[from..] {
            if high.is_some_and(|(end, _)| end <= request.start) {
                break;
            }
            let takes_away = match request.ask {
                Ask::Put | Ask::Delete => true,
                Ask::Post => class.slots_of_shape[usize::from(request.shape)].contains(&slot),
                Ask::Garbage | Ask::Inconsistent => false,
            };
            if takes_away && request.answer == Answer::Done {
                high = Some(high.map_or((request.end, *version), |high| high.min((request.end, *version))));
            }
        }
        bounds.high = high;
    }
    bounds
}
