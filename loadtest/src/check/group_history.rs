//! From the records of writers and scrapers to the actions on one group.

use std::collections::HashMap;

use super::linearize::{Action, Effect, Sight};
use super::{Findings, Violation, explain};
use crate::exposition::kind_of;
use crate::history::{self, Answer, Ask, History, NEVER, Request, Scrape, read_shown, shown};
use crate::schema::{Group, Layout, Version};

/// Where things about a group stand in the history.
pub struct Index<'a> {
    /// The history itself.
    pub history: &'a History,
    requests: HashMap<Group, Vec<Version>>,
    /// Scraper and index of the sight.
    sights: HashMap<Group, Vec<(usize, usize)>>,
}

/// Where an action comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A request.
    Request(Version),
    /// A scrape: of which scraper, which.
    Scrape(usize, usize),
    /// A kill.
    Crash,
}

/// What happened to a group.
pub struct Gathered {
    /// How many slots its state has.
    pub slots: usize,
    /// What happened.
    pub actions: Vec<Action>,
    /// Beside each action, where it comes from.
    pub sources: Vec<Source>,
}

impl<'a> Index<'a> {
    /// Reads the history once.
    pub fn new(history: &'a History) -> Self {
        let mut requests: HashMap<Group, Vec<Version>> = HashMap::new();
        for (writer, sent) in history.requests.iter().enumerate() {
            for (sequence, request) in sent.iter().enumerate() {
                requests.entry(request.group).or_default().push(Version::new(writer, sequence));
            }
        }
        let mut sights: HashMap<Group, Vec<(usize, usize)>> = HashMap::new();
        for (scraper, scrapes) in history.scrapes.iter().enumerate() {
            for (at, sight) in scrapes.sights.iter().enumerate() {
                sights.entry(sight.group).or_default().push((scraper, at));
            }
        }
        Self { history, requests, sights }
    }

    /// All groups of which anything is known, in order.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<_> = self.requests.keys().chain(self.sights.keys()).copied().collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// The requests to a group.
    pub fn requests(&self, group: Group) -> impl Iterator<Item = (Version, &'a Request)> {
        let versions = self.requests.get(&group).map_or(&[][..], Vec::as_slice);
        versions.iter().map(|version| (*version, self.history.request(*version).expect("it was indexed")))
    }

    /// The sights of a group, each with its scraper.
    pub fn sights(&self, group: Group) -> impl Iterator<Item = (usize, history::Sight)> {
        let sights = self.sights.get(&group).map_or(&[][..], Vec::as_slice);
        sights.iter().map(|(scraper, at)| (*scraper, self.history.scrapes[*scraper].sights[*at]))
    }

    /// All actions on a group. Sights that cannot be of any order are findings at once, and left out.
    pub fn gather(&self, layout: &Layout, group: Group, findings: &mut Findings) -> Gathered {
        let slots = layout.class(group).map_or(0, |class| class.slots);
        let mut all = Gathered { slots, actions: Vec::new(), sources: Vec::new() };
        for (version, request) in self.requests(group) {
            self.request(layout, version, request, &mut all);
        }
        let begins = all.actions.iter().map(|action| action.start).min().unwrap_or(NEVER);
        let ends =
            all.actions.iter().map(|action| if action.end == NEVER { action.start } else { action.end });
        let ends = ends.max().unwrap_or(0);
        for scraper in 0..self.history.scrapes.len() {
            self.scraper(layout, group, scraper, (begins, ends), &mut all, findings);
        }
        for crash in self.history.crashes.iter().filter(|crash| **crash > begins) {
            all.push(Source::Crash, *crash, *crash, Effect::Crash, false, true);
        }
        all
    }

    fn request(&self, layout: &Layout, version: Version, request: &Request, all: &mut Gathered) {
        let answered = matches!(request.answer, Answer::Done | Answer::Refused);
        let end = match request.answer {
            Answer::Rejected | Answer::NotSent => return,
            // What was under way when the process died cannot take effect afterwards.
            Answer::Lost => {
                let crash = self.history.crashes.iter().find(|crash| **crash > request.start);
                crash.map_or(NEVER, |crash| crash - 1)
            }
            Answer::Done if self.history.late_deletes && request.ask == Ask::Delete => {
                self.next_answer(request)
            }
            Answer::Done | Answer::Refused | Answer::Unknown(_) => request.end,
        };
        let mut push =
            |effect| all.push(Source::Request(version), request.start, end, effect, !answered, answered);
        let set = |replace| set(layout, request, version, replace);
        match request.ask {
            Ask::Delete => push(Effect::Delete),
            _ if request.answer == Answer::Refused => push(Effect::Fail),
            Ask::Put => push(set(true)),
            Ask::Post => push(set(false)),
            // The finding is the answer; the content is what it is.
            Ask::Garbage if answered => push(set(true)),
            Ask::Garbage => {}
            Ask::Inconsistent if answered => push(set(true)),
            Ask::Inconsistent => push(Effect::Fail),
        }
        let contested =
            || layout.class(request.group).is_some_and(|class| class.contested(usize::from(request.shape)));
        if !answered && matches!(request.ask, Ask::Put | Ask::Post) && contested() {
            all.push(Source::Request(version), request.start, end, Effect::Fail, true, false);
        }
    }

    /// When the first push was answered that was sent after this request had been.
    fn next_answer(&self, request: &Request) -> u64 {
        let later = self
            .requests(request.group)
            .filter(|(_, other)| other.start > request.end && other.ask != Ask::Delete);
        let answered = later.filter(|(_, other)| matches!(other.answer, Answer::Done | Answer::Refused));
        answered.map(|(_, other)| other.end).min().unwrap_or(NEVER)
    }

    fn scraper(
        &self,
        layout: &Layout,
        group: Group,
        scraper: usize,
        (begins, ends): (u64, u64),
        all: &mut Gathered,
        findings: &mut Findings,
    ) {
        let scrapes = &self.history.scrapes[scraper];
        let mut sights: Vec<_> =
            self.sights(group).filter(|(by, _)| *by == scraper).map(|(_, sight)| sight).collect();
        sights.sort_unstable_by_key(|sight| sight.first);
        let mut next = 0;
        for sight in sights {
            self.absences(scraper, next..sight.first as usize, (begins, ends), all);
            next = sight.last as usize + 1;
            let slots = scrapes.slots(&sight, all.slots);
            if let Some((kind, text, version)) = self.impossible(layout, group, slots) {
                let scrape = scrapes.times[sight.first as usize];
                let mut story =
                    vec![explain::line(scrape.start, scrape.end, &format!("scrape of {group}: {text}"))];
                if let Some(request) = self.history.request(version) {
                    let sequence = version.sequence().unwrap_or_default();
                    story.insert(0, explain::request(layout, request, version.writer(), sequence));
                }
                findings.add(Violation { kind, group: Some(group.to_string()), story });
                continue;
            }
            let seen = Sight { slots: slots.to_vec(), pushed: sight.pushed, failed: sight.failed };
            let mut see = |at: u32| {
                let Scrape { start, end } = scrapes.times[at as usize];
                let effect = Effect::See(Some(seen.clone()));
                all.push(Source::Scrape(scraper, at as usize), start, end, effect, false, true);
            };
            see(sight.first);
            if sight.last != sight.first {
                see(sight.last);
            }
        }
        self.absences(scraper, next..scrapes.times.len(), (begins, ends), all);
    }

    /// Scrapes that did not show the group. Of a row of them that lie behind all requests the first is enough.
    fn absences(&self, scraper: usize, range: std::ops::Range<usize>, span: (u64, u64), all: &mut Gathered) {
        let (begins, ends) = span;
        let times = &self.history.scrapes[scraper].times;
        let from = range.start.max(times.partition_point(|scrape| scrape.end < begins));
        let seen = times.iter().enumerate().take(range.end).skip(from);
        for (at, Scrape { start, end }) in seen.map(|(at, scrape)| (at, *scrape)) {
            all.push(Source::Scrape(scraper, at), start, end, Effect::See(None), false, true);
            if start > ends {
                break;
            }
        }
    }

    /// What is wrong with a sight, whatever the order was: kind, text, the version it is about.
    fn impossible(
        &self,
        layout: &Layout,
        group: Group,
        slots: &[u64],
    ) -> Option<(&'static str, String, Version)> {
        slots.iter().enumerate().find_map(|(slot, seen)| {
            let (version, kind) = read_shown(*seen)?;
            let Some(request) = self.history.request(version) else {
                return Some(("phantom", format!("shows push {version}, which nobody sent"), version));
            };
            if request.group != group {
                return Some((
                    "phantom",
                    format!("shows push {version}, which went to another group"),
                    version,
                ));
            }
            let bad =
                matches!(request.ask, Ask::Garbage | Ask::Inconsistent) && request.answer != Answer::Done;
            if bad || matches!(request.answer, Answer::Refused | Answer::Rejected | Answer::NotSent) {
                return Some((
                    "refused push shown",
                    format!("shows push {version}, which was refused"),
                    version,
                ));
            }
            match kind_of(layout, group, slot, usize::from(request.shape)) {
                None => Some((
                    "phantom",
                    format!("shows push {version} in a family that it did not bring"),
                    version,
                )),
                Some(pushed) if pushed != kind => {
                    let text = format!("shows push {version} as {}, it was a {}", kind.word(), pushed.word());
                    Some(("two types", text, version))
                }
                Some(_) => None,
            }
        })
    }
}

impl Gathered {
    fn push(
        &mut self,
        source: Source,
        start: u64,
        end: u64,
        effect: Effect,
        optional: bool,
        confirmed: bool,
    ) {
        self.actions.push(Action { start, end, effect, optional, confirmed });
        self.sources.push(source);
    }
}

fn set(layout: &Layout, request: &Request, version: Version, replace: bool) -> Effect {
    let class = &layout.classes[request.group.class()];
    let families = class.shapes[usize::from(request.shape)].iter().map(|at| &class.families[*at]);
    let slots = families.map(|family| (family.slot, shown(version, family.kind))).collect();
    Effect::Set { replace, version: version.0, slots }
}
