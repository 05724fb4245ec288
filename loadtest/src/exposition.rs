//! Reads scrapes: which groups of the run they show, in what state, and the errors that one scrape proves by itself.
//!
//! This is not a parser of the format. It recognises the lines that both programs print for the load test's pushes (labels
//! sorted by name, the grouping labels first) and ignores everything else. A line of the run that it cannot read is a flaw.

use std::collections::HashMap;

use memchr::{memchr, memmem};

use crate::history::{ABSENT, Scrape, ScrapeLog, pack_slot};
use crate::schema::{GroupId, PushId, Schema, checksum};
use crate::violation::ViolationKind;

/// Reads scrapes of one run, with reusable tables.
pub struct ScrapeReader<'a> {
    schema: &'a Schema,
    /// Families by name: several where pushes contest the type.
    families: HashMap<&'a [u8], Vec<FamilyIndex>>,
    /// Where the identifier of the group begins.
    instance_label: memmem::Finder<'static>,
    /// In the checksum line of a gauge or a counter.
    checksum_label: memmem::Finder<'static>,
    /// The labels that follow the identifier of the group.
    other_labels: Vec<u8>,
    /// Index into `found`.
    groups: HashMap<GroupId, usize>,
    found: Vec<FoundGroup>,
    slots: Vec<SlotLines>,
}

/// A family of the schema, by class and index in that class.
#[derive(Clone, Copy)]
struct FamilyIndex {
    class: usize,
    family: usize,
}

/// A group in the current scrape.
#[derive(Clone)]
struct FoundGroup {
    group: GroupId,
    pushed: u64,
    failed: u64,
    /// Where its slots begin in [`ScrapeReader::slots`].
    slots_at: usize,
}

/// The lines of a slot of one group in the current scrape.
#[derive(Clone, Copy, Default)]
struct SlotLines {
    count: u32,
    push: u64,
    checksum: u64,
    /// A second push in the same family, or 0.
    other_push: u64,
    /// Index of the family in its class.
    family: usize,
}

/// The family that the current lines belong to.
#[derive(Clone, Copy)]
enum Section {
    /// A family that the load test does not push.
    Other,
    Pushed(FamilyIndex),
    PushTime,
    FailureTime,
}

impl<'a> ScrapeReader<'a> {
    /// A reader for one run.
    pub fn new(schema: &'a Schema) -> Self {
        let mut families: HashMap<&[u8], Vec<_>> = HashMap::new();
        for (class, families_of_class) in schema.classes.iter().enumerate() {
            for (at, family) in families_of_class.families.iter().enumerate() {
                let index = FamilyIndex { class, family: at };
                families.entry(family.name.as_bytes()).or_default().push(index);
            }
        }
        Self {
            schema,
            families,
            instance_label: memmem::Finder::new(b"instance=\"g").into_owned(),
            checksum_label: memmem::Finder::new(b"series=\"0\"").into_owned(),
            other_labels: format!("\",job=\"loadtest\",run=\"{}\"", schema.run).into_bytes(),
            groups: HashMap::new(),
            found: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Records what a scrape shows. The text must be complete.
    pub fn read(&mut self, text: &[u8], scrape: Scrape, log: &mut ScrapeLog) {
        self.groups.clear();
        self.found.clear();
        self.slots.clear();
        log.begin(scrape);
        let mut section = Section::Other;
        let mut typed: Vec<&[u8]> = Vec::new();
        let mut latest = None;
        let mut rest = text;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = &rest[(end + 1).min(rest.len())..];
            if let Some(type_line) = line.strip_prefix(b"# TYPE ") {
                section = self.begin_section(type_line, &mut typed, log);
            } else if line.first() != Some(&b'#') && !matches!(section, Section::Other) {
                self.read_sample(line, section, &mut latest, log);
            }
        }
        self.record_groups(log);
    }

    /// Finds the family of a `# TYPE` line. `typed` contains the families of the run that came before.
    fn begin_section<'t>(&self, line: &'t [u8], typed: &mut Vec<&'t [u8]>, log: &mut ScrapeLog) -> Section {
        let Some(blank) = memchr(b' ', line) else { return Section::Other };
        let (name, type_name) = (&line[..blank], &line[blank + 1..]);
        match name {
            b"push_time_seconds" => return Section::PushTime,
            b"push_failure_time_seconds" => return Section::FailureTime,
            _ => {}
        }
        let Some(candidates) = self.families.get(name) else { return Section::Other };
        if typed.contains(&name) {
            let text = format!("a second # TYPE of {}", String::from_utf8_lossy(name));
            log.record_flaw(ViolationKind::WrongType, text);
        }
        typed.push(name);
        let has_type = |index: &&FamilyIndex| {
            let family = &self.schema.classes[index.class].families[index.family];
            family.metric_type.name().as_bytes() == type_name
        };
        match candidates.iter().find(has_type) {
            Some(index) => Section::Pushed(*index),
            None => {
                let text = format!("no push has # TYPE {}", String::from_utf8_lossy(line));
                log.record_flaw(ViolationKind::WrongType, text);
                Section::Other
            }
        }
    }

    /// Reads a sample. `latest` is the group of the previous line and its index, because most lines repeat it.
    fn read_sample(
        &mut self,
        line: &[u8],
        section: Section,
        latest: &mut Option<(GroupId, usize)>,
        log: &mut ScrapeLog,
    ) {
        let Some(group) = self.group(line) else { return };
        let Some(class) = self.schema.class(group) else {
            let text = format!("no such group: {}", String::from_utf8_lossy(line));
            log.record_flaw(ViolationKind::PhantomPush, text);
            return;
        };
        let at = match latest {
            Some((known, at)) if *known == group => *at,
            _ => *self.groups.entry(group).or_insert_with(|| {
                self.found.push(FoundGroup { group, pushed: 0, failed: 0, slots_at: self.slots.len() });
                self.slots.resize(self.slots.len() + class.slot_count, SlotLines::default());
                self.found.len() - 1
            }),
        };
        *latest = Some((group, at));
        let value =
            line.rsplit(|byte| *byte == b' ').next().and_then(|value| std::str::from_utf8(value).ok());
        let Some(value) = value.and_then(|value| value.parse::<f64>().ok()) else {
            let text = format!("no value: {}", String::from_utf8_lossy(line));
            log.record_flaw(ViolationKind::PartialPush, text);
            return;
        };
        match section {
            Section::Other => {}
            Section::PushTime => self.found[at].pushed = value.to_bits(),
            Section::FailureTime => self.found[at].failed = value.to_bits(),
            Section::Pushed(FamilyIndex { class, family }) if class == group.class() => {
                let slot = self.schema.classes[class].families[family].slot;
                let is_checksum = self.is_checksum(line);
                let lines = &mut self.slots[self.found[at].slots_at + slot];
                lines.count += 1;
                lines.family = family;
                if is_checksum {
                    lines.checksum = value as u64;
                } else if lines.push == 0 {
                    lines.push = value as u64;
                } else if lines.push != value as u64 {
                    lines.other_push = value as u64;
                }
            }
            Section::Pushed(_) => {
                let text = format!("never pushed to this group: {}", String::from_utf8_lossy(line));
                log.record_flaw(ViolationKind::PhantomPush, text);
            }
        }
    }

    /// Whether a line is the checksum line of its family.
    fn is_checksum(&self, line: &[u8]) -> bool {
        let brace = memchr(b'{', line).unwrap_or(0);
        line[..brace].ends_with(b"_sum") || self.checksum_label.find(line).is_some()
    }

    /// The group of a line, if the line belongs to this run.
    fn group(&self, line: &[u8]) -> Option<GroupId> {
        let begin = self.instance_label.find(line)? + b"instance=\"g".len();
        let end = begin + memchr(b'"', &line[begin..])?;
        if !line[end..].starts_with(&self.other_labels) {
            return None;
        }
        std::str::from_utf8(&line[begin..end]).ok()?.parse().ok().map(GroupId)
    }

    /// Records the groups of the scrape, and the flaws of their families.
    fn record_groups(&mut self, log: &mut ScrapeLog) {
        let mut slots = Vec::new();
        for found in &self.found {
            let class = &self.schema.classes[found.group.class()];
            slots.clear();
            let mut is_complete = true;
            let lines_of_slots = &self.slots[found.slots_at..found.slots_at + class.slot_count];
            for (slot, lines) in lines_of_slots.iter().enumerate() {
                if lines.count == 0 {
                    slots.push(ABSENT);
                    continue;
                }
                let family = &class.families[lines.family];
                if let Some(text) = flaw_of_family(found.group, slot, family.lines, lines) {
                    let text = format!("{} of {}: {text}", family.name, found.group);
                    log.record_flaw(ViolationKind::PartialPush, text);
                    is_complete = false;
                }
                slots.push(pack_slot(PushId(lines.push), family.metric_type));
            }
            // An incomplete state has its flaw. As an observation it would cause violations that only repeat it.
            if is_complete {
                log.observe(found.group, found.pushed, found.failed, &slots);
            }
        }
    }
}

/// Describes what is wrong with the lines of a family of which a scrape must show `expected`.
fn flaw_of_family(group: GroupId, slot: usize, expected: u32, lines: &SlotLines) -> Option<String> {
    let push = PushId(lines.push);
    if lines.other_push != 0 {
        return Some(format!("samples of two pushes, {push} and {}", PushId(lines.other_push)));
    }
    if lines.count != expected {
        return Some(format!("{} lines of push {push} instead of {expected}", lines.count));
    }
    let expected = checksum(group, slot, push);
    (lines.checksum != expected)
        .then(|| format!("checksum {} of push {push} instead of {expected}", lines.checksum))
}

/// The value of a metric without labels, such as `process_cpu_seconds_total`.
pub fn plain_value(text: &[u8], name: &str) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::unpack_slot;
    use crate::schema::{GroupClass, MetricType};

    /// The exposition of a gateway that received one push.
    fn exposition(schema: &Schema, group: GroupId, push: PushId) -> String {
        let mut body = Vec::new();
        schema.render_body(group, 0, push, &mut body);
        let labels = format!("instance=\"{group}\",job=\"loadtest\",run=\"{}\"", schema.run);
        let mut text = String::new();
        for line in String::from_utf8(body).expect("UTF-8").lines() {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            match series.split_once('{') {
                _ if line.starts_with('#') => text.push_str(line),
                Some((name, own)) => text.push_str(&format!("{name}{{{labels},{own} {value}")),
                None => text.push_str(&format!("{series}{{{labels}}} {value}")),
            }
            text.push('\n');
        }
        text + &format!("# TYPE push_time_seconds gauge\npush_time_seconds{{{labels}}} 1.5e+09\n")
    }

    /// Reads the exposition of one push after a change to its text.
    fn read(change: impl Fn(String) -> String) -> ScrapeLog {
        let schema = Schema { classes: vec![GroupClass::new("a", 4, 6)], run: "r".to_owned() };
        let text = change(exposition(&schema, GroupId::new(0, 3), PushId::new(1, 2)));
        let mut log = ScrapeLog::default();
        ScrapeReader::new(&schema).read(text.as_bytes(), Scrape { start: 1, end: 2 }, &mut log);
        log
    }

    #[test]
    fn a_complete_push_is_one_observation() {
        let log = read(|text| text);
        assert!(log.flaws.is_empty(), "{:?}", log.flaws);
        let observation = log.observations[0];
        let read = (observation.group, observation.pushed);
        assert_eq!(read, (GroupId::new(0, 3), 1.5e9_f64.to_bits()));
        for (slot, metric_type) in log.slots(&observation, 4).iter().zip(MetricType::ALL) {
            assert_eq!(unpack_slot(*slot), Some((PushId::new(1, 2), metric_type)));
        }
    }

    #[test]
    fn a_missing_line_is_a_flaw() {
        let mut flaws = 0;
        for victim in 0..40 {
            let log = read(|text| {
                let kept =
                    text.lines().enumerate().filter(|(at, line)| *at != victim || line.starts_with('#'));
                kept.map(|(_, line)| format!("{line}\n")).collect()
            });
            flaws += usize::from(log.flaws.len() == 1);
        }
        assert!(flaws > 15, "{flaws}");
    }

    #[test]
    fn a_changed_line_is_a_flaw() {
        let kind = |change: &dyn Fn(String) -> String| read(change).flaws[0].kind;
        let partial = kind(&|text| text.replacen("4294967299\n", "4294967300\n", 1));
        assert_eq!(partial, ViolationKind::PartialPush);
        let retyped = kind(&|text| text.replace("TYPE lt_a_0 gauge", "TYPE lt_a_0 counter"));
        assert_eq!(retyped, ViolationKind::WrongType);
        let typed_twice = kind(&|text| format!("{text}# TYPE lt_a_0 gauge\n"));
        assert_eq!(typed_twice, ViolationKind::WrongType);
    }

    #[test]
    fn groups_of_other_runs_are_ignored() {
        assert!(read(|text| text.replace("run=\"r\"", "run=\"other\"")).observations.is_empty());
    }
}
