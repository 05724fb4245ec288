//! Reads a scrape: which of our groups it shows, in what state, and what is wrong with it at sight.
//!
//! Not a parser of the format: it knows the lines that both programs print for what we pushed (labels sorted by name, our
//! own in front of none), and leaves everything else alone. What it cannot read of ours is a flaw, not a panic.

use std::collections::HashMap;

use memchr::{memchr, memmem};

use crate::history::{ABSENT, Scrape, Scrapes, shown};
use crate::schema::{Group, Kind, Layout, Version, checksum};

/// Finds our lines in expositions, again and again.
pub struct Reader<'a> {
    layout: &'a Layout,
    /// Which families bear a name: more than one where types contest it.
    families: HashMap<&'a [u8], Vec<(usize, usize)>>,
    instance: memmem::Finder<'static>,
    /// In the line with the checksum of a gauge or counter.
    checksum_label: memmem::Finder<'static>,
    /// What must follow the number of the group.
    rest: Vec<u8>,
    groups: HashMap<Group, usize>,
    found: Vec<Found>,
    seen: Vec<Seen>,
}

#[derive(Clone)]
struct Found {
    group: Group,
    pushed: u64,
    failed: u64,
    /// Where its slots begin in `seen`.
    at: usize,
}

/// What a slot of a group showed so far.
#[derive(Clone, Copy, Default)]
struct Seen {
    lines: u32,
    version: u64,
    checksum: u64,
    /// A second version in the same family.
    other: u64,
    kind: usize,
}

/// The family that the lines being read belong to.
enum Place {
    Foreign,
    Ours(usize, usize),
    Pushed,
    Failed,
}

impl<'a> Reader<'a> {
    /// A reader for one run.
    pub fn new(layout: &'a Layout) -> Self {
        let mut families: HashMap<&[u8], Vec<_>> = HashMap::new();
        for (class, families_of_class) in layout.classes.iter().enumerate() {
            for (at, family) in families_of_class.families.iter().enumerate() {
                families.entry(family.name.as_bytes()).or_default().push((class, at));
            }
        }
        Self {
            layout,
            families,
            instance: memmem::Finder::new(b"instance=\"g").into_owned(),
            checksum_label: memmem::Finder::new(b"series=\"0\"").into_owned(),
            rest: format!("\",job=\"loadtest\",run=\"{}\"", layout.run).into_bytes(),
            groups: HashMap::new(),
            found: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Notes what a scrape shows. The text must be whole.
    pub fn read(&mut self, text: &[u8], scrape: Scrape, scrapes: &mut Scrapes) {
        self.groups.clear();
        self.found.clear();
        self.seen.clear();
        scrapes.begin(scrape);
        let mut place = Place::Foreign;
        let mut typed: Vec<&[u8]> = Vec::new();
        let mut latest = None;
        let mut rest = text;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = &rest[(end + 1).min(rest.len())..];
            if let Some(type_line) = line.strip_prefix(b"# TYPE ") {
                place = self.place(type_line, &mut typed, scrapes);
            } else if line.first() != Some(&b'#') && !matches!(place, Place::Foreign) {
                self.sample(line, &place, &mut latest, scrapes);
            }
        }
        self.finish(scrapes);
    }

    fn place<'t>(&self, line: &'t [u8], typed: &mut Vec<&'t [u8]>, scrapes: &mut Scrapes) -> Place {
        let Some(blank) = memchr(b' ', line) else { return Place::Foreign };
        let (name, word) = (&line[..blank], &line[blank + 1..]);
        match name {
            b"push_time_seconds" => return Place::Pushed,
            b"push_failure_time_seconds" => return Place::Failed,
            _ => {}
        }
        let Some(candidates) = self.families.get(name) else { return Place::Foreign };
        if typed.contains(&name) {
            scrapes.flaw("two types", format!("a second # TYPE of {}", String::from_utf8_lossy(name)));
        }
        typed.push(name);
        let kind = |(class, at): &&(usize, usize)| {
            self.layout.classes[*class].families[*at].kind.word().as_bytes() == word
        };
        match candidates.iter().find(kind) {
            Some((class, at)) => Place::Ours(*class, *at),
            None => {
                let text = format!("nobody pushed this: # TYPE {}", String::from_utf8_lossy(line));
                scrapes.flaw("two types", text);
                Place::Foreign
            }
        }
    }

    fn sample(
        &mut self,
        line: &[u8],
        place: &Place,
        latest: &mut Option<(Group, usize)>,
        scrapes: &mut Scrapes,
    ) {
        let Some(group) = self.group(line) else { return };
        let Some(class) = self.layout.class(group) else {
            scrapes.flaw("phantom", format!("no such group: {}", String::from_utf8_lossy(line)));
            return;
        };
        let at = match latest {
            Some((known, at)) if *known == group => *at,
            _ => *self.groups.entry(group).or_insert_with(|| {
                self.found.push(Found { group, pushed: 0, failed: 0, at: self.seen.len() });
                self.seen.resize(self.seen.len() + class.slots, Seen::default());
                self.found.len() - 1
            }),
        };
        *latest = Some((group, at));
        let value =
            line.rsplit(|byte| *byte == b' ').next().and_then(|value| std::str::from_utf8(value).ok());
        let Some(value) = value.and_then(|value| value.parse::<f64>().ok()) else {
            scrapes.flaw("half a push", format!("no value: {}", String::from_utf8_lossy(line)));
            return;
        };
        match *place {
            Place::Foreign => {}
            Place::Pushed => self.found[at].pushed = value.to_bits(),
            Place::Failed => self.found[at].failed = value.to_bits(),
            Place::Ours(class, family) if class == group.class() => {
                let slot = self.layout.classes[class].families[family].slot;
                let is_checksum = self.is_checksum(line);
                let seen = &mut self.seen[self.found[at].at + slot];
                seen.lines += 1;
                seen.kind = family;
                if is_checksum {
                    seen.checksum = value as u64;
                } else if seen.version == 0 {
                    seen.version = value as u64;
                } else if seen.version != value as u64 {
                    seen.other = value as u64;
                }
            }
            Place::Ours(..) => {
                scrapes.flaw(
                    "phantom",
                    format!("never pushed to this group: {}", String::from_utf8_lossy(line)),
                );
            }
        }
    }

    /// Whether a line is the one of its family that holds the checksum.
    fn is_checksum(&self, line: &[u8]) -> bool {
        let brace = memchr(b'{', line).unwrap_or(0);
        line[..brace].ends_with(b"_sum") || self.checksum_label.find(line).is_some()
    }

    /// The group of a line, if it is one of this run.
    fn group(&self, line: &[u8]) -> Option<Group> {
        let begin = self.instance.find(line)? + b"instance=\"g".len();
        let end = begin + memchr(b'"', &line[begin..])?;
        if !line[end..].starts_with(&self.rest) {
            return None;
        }
        std::str::from_utf8(&line[begin..end]).ok()?.parse().ok().map(Group)
    }

    fn finish(&mut self, scrapes: &mut Scrapes) {
        let mut slots = Vec::new();
        for found in &self.found {
            let class = &self.layout.classes[found.group.class()];
            slots.clear();
            let mut whole = true;
            for (slot, seen) in self.seen[found.at..found.at + class.slots].iter().enumerate() {
                if seen.lines == 0 {
                    slots.push(ABSENT);
                    continue;
                }
                let family = &class.families[seen.kind];
                let version = Version(seen.version);
                if let Some(text) = flaw(found.group, slot, family.lines, seen) {
                    scrapes.flaw("half a push", format!("{} of {}: {text}", family.name, found.group));
                    whole = false;
                }
                slots.push(shown(version, family.kind));
            }
            // A broken sight would only confuse what the other ones tell.
            if whole {
                scrapes.sight(found.group, found.pushed, found.failed, &slots);
            }
        }
    }
}

fn flaw(group: Group, slot: usize, lines: u32, seen: &Seen) -> Option<String> {
    let version = Version(seen.version);
    if seen.other != 0 {
        return Some(format!("samples of two pushes, {version} and {}", Version(seen.other)));
    }
    if seen.lines != lines {
        return Some(format!("{} lines of push {version} instead of {lines}", seen.lines));
    }
    let wanted = checksum(group, slot, version);
    (seen.checksum != wanted)
        .then(|| format!("checksum {} of push {version} instead of {wanted}", seen.checksum))
}

/// The value of a metric without labels, such as `process_cpu_seconds_total`.
pub fn plain_value(text: &[u8], name: &str) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// All types that families of one name can show: used to tell a contested name's slot.
pub fn kind_of(layout: &Layout, group: Group, slot: usize, shape: usize) -> Option<Kind> {
    let class = layout.class(group)?;
    let families = class.shapes.get(shape)?.iter().map(|at| &class.families[*at]);
    families.into_iter().find(|family| family.slot == slot).map(|family| family.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Class;

    /// What a gateway would show of one push, with labels where they belong.
    fn exposition(layout: &Layout, group: Group, version: Version) -> String {
        let mut body = Vec::new();
        layout.render(group, 0, version, &mut body);
        let labels = format!("instance=\"{group}\",job=\"loadtest\",run=\"{}\"", layout.run);
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

    fn read(change: impl Fn(String) -> String) -> Scrapes {
        let layout = Layout { classes: vec![Class::new("a", 4, 6, false)], run: "r".to_owned() };
        let text = change(exposition(&layout, Group::new(0, 3), Version::new(1, 2)));
        let mut scrapes = Scrapes::default();
        Reader::new(&layout).read(text.as_bytes(), Scrape { start: 1, end: 2 }, &mut scrapes);
        scrapes
    }

    #[test]
    fn a_whole_push_is_read() {
        let scrapes = read(|text| text);
        assert!(scrapes.flaws.is_empty(), "{:?}", scrapes.flaws);
        let sight = scrapes.sights[0];
        assert_eq!((sight.group, sight.pushed), (Group::new(0, 3), 1.5e9_f64.to_bits()));
        for (shown, kind) in scrapes.slots(&sight, 4).iter().zip(Kind::ALL) {
            assert_eq!(crate::history::read_shown(*shown), Some((Version::new(1, 2), kind)));
        }
    }

    #[test]
    fn what_is_broken_at_sight_is_a_flaw() {
        let mut lines_tried = 0;
        for victim in 0.. {
            let changed = read(|text| {
                let kept =
                    text.lines().enumerate().filter(|(at, line)| *at != victim || line.starts_with('#'));
                kept.map(|(_, line)| format!("{line}\n")).collect()
            });
            if victim >= 40 {
                break;
            }
            lines_tried += usize::from(changed.flaws.len() == 1);
        }
        assert!(lines_tried > 15, "{lines_tried}");
        assert_eq!(
            read(|text| text.replacen("4294967299\n", "4294967300\n", 1)).flaws[0].kind,
            "half a push"
        );
        assert_eq!(
            read(|text| text.replace("TYPE lt_a_0 gauge", "TYPE lt_a_0 counter")).flaws[0].kind,
            "two types"
        );
        assert_eq!(read(|text| format!("{text}# TYPE lt_a_0 gauge\n")).flaws[0].kind, "two types");
        assert!(read(|text| text.replace("run=\"r\"", "run=\"other\"")).sights.is_empty());
    }
}
