//! What the pushes look like: families, shapes (sets of families that one push brings), and how a push is known again in a scrape.
//!
//! Every sample says which push it came from. Its value is the push's *version* (writer and sequence number in one whole
//! number that a float keeps exactly), but in one sample of each family, which shows a checksum over group, family and
//! version. So half a family, or a family of two pushes, is seen without remembering what was sent.

/// Digits of a value in a body. Leading zeros cost nothing, and a fixed width lets values be patched in place.
const DIGITS: usize = 16;
/// Groups are numbered within their class.
const GROUPS_OF_A_CLASS_MAX: u32 = 10_000_000;

/// One push: which writer, its how many-eth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    /// Writers stay below 2^20, so a version stays below 2^52.
    pub fn new(writer: usize, sequence: usize) -> Self {
        Self(((writer as u64) << 32) | (sequence as u64 + 1))
    }

    /// Which connection sent it.
    pub fn writer(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// Its number among the requests of its writer, from 0; `None` for what no writer sends.
    pub fn sequence(self) -> Option<usize> {
        (self.0 as u32).checked_sub(1).map(|sequence| sequence as usize)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sequence() {
            Some(sequence) => write!(f, "{}.{sequence}", self.writer()),
            None => write!(f, "?{}", self.0),
        }
    }
}

/// A group of the run: its class and its number in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

impl Group {
    /// The group of that number in that class.
    pub fn new(class: usize, number: u32) -> Self {
        Self(class as u32 * GROUPS_OF_A_CLASS_MAX + number % GROUPS_OF_A_CLASS_MAX)
    }

    /// Which class of [`Layout::classes`] it belongs to.
    pub fn class(self) -> usize {
        (self.0 / GROUPS_OF_A_CLASS_MAX) as usize
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "g{:08}", self.0)
    }
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `gauge`
    Gauge,
    /// `counter`
    Counter,
    /// `histogram`
    Histogram,
    /// `summary`
    Summary,
}

impl Kind {
    /// In the order in which families take turns.
    pub const ALL: [Self; 4] = [Self::Gauge, Self::Counter, Self::Histogram, Self::Summary];

    /// As `# TYPE` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// A family as it stands in bodies.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Its place in the state of a group. Two types that contest one name share a slot.
    pub slot: usize,
    /// How many lines of samples a scrape must show.
    pub lines: u32,
    text: Vec<u8>,
    versions: Vec<usize>,
    checksum: usize,
}

/// A kind of group: the families its pushes may bring.
#[derive(Debug)]
pub struct Class {
    /// All families, in slot order.
    pub families: Vec<Family>,
    /// Each a set of families that one push brings, by index.
    pub shapes: Vec<Vec<usize>>,
    /// The same by slot.
    pub slots_of_shape: Vec<Vec<usize>>,
    /// How many slots the state of a group has.
    pub slots: usize,
}

/// Everything the groups of a run may hold.
#[derive(Debug)]
pub struct Layout {
    /// By the number that [`Group::class`] gives.
    pub classes: Vec<Class>,
    /// Sets the groups of this run apart from those of other runs.
    pub run: String,
}

impl Class {
    /// `families` families of about `series` lines, types taking turns; the shapes are all of them, and with `parts` some subsets.
    pub fn new(name: &str, families: usize, series: usize, parts: bool) -> Self {
        let families: Vec<_> = (0..families)
            .map(|at| Family::new(format!("lt_{name}_{at}"), Kind::ALL[at % 4], at, series))
            .collect();
        let all: Vec<usize> = (0..families.len()).collect();
        let mut shapes = vec![all.clone()];
        if parts && families.len() > 1 {
            let half = families.len() / 2;
            shapes.push(all[..half].to_vec());
            shapes.push(all[half..].to_vec());
            shapes.push(all.iter().copied().step_by(2).collect());
            shapes.push(Vec::new());
        }
        Self::of(families, shapes)
    }

    /// As `new` with parts, and a last family whose type the pushes contest: [`Class::contested`] tells the shapes.
    pub fn with_contested(name: &str, families: usize, series: usize) -> Self {
        let mut class = Self::new(name, families, series, true);
        let (name, slot) = (format!("lt_{name}_contested"), class.families.len());
        for kind in [Kind::Gauge, Kind::Counter] {
            class.families.push(Family::new(name.clone(), kind, slot, 2));
        }
        let mut shapes = class.shapes;
        shapes.push(vec![0, slot]);
        shapes.push(vec![0, slot + 1]);
        Self::of(class.families, shapes)
    }

    /// Whether pushes of this shape may rightly be refused, because another group may hold the name with another type.
    pub fn contested(&self, shape: usize) -> bool {
        self.shapes[shape].iter().any(|at| self.families[*at].name.ends_with("_contested"))
    }

    fn of(families: Vec<Family>, shapes: Vec<Vec<usize>>) -> Self {
        let slots = families.iter().map(|family| family.slot + 1).max().unwrap_or(0);
        let by_slot = |shape: &Vec<usize>| shape.iter().map(|at| families[*at].slot).collect();
        let slots_of_shape = shapes.iter().map(by_slot).collect();
        Self { families, shapes, slots_of_shape, slots }
    }
}

impl Family {
    fn new(name: String, kind: Kind, slot: usize, series: usize) -> Self {
        let mut family =
            Self { text: Vec::new(), name, kind, slot, lines: 0, versions: Vec::new(), checksum: 0 };
        family.text(&format!(
            "# HELP {0} Made by sluicegate-loadtest.\n# TYPE {0} {1}\n",
            family.name,
            kind.word()
        ));
        let name = family.name.clone();
        // At least one line with the version and one with the checksum.
        match kind {
            Kind::Gauge | Kind::Counter => {
                for at in 1..series.max(2) {
                    family.version(&format!("{name}{{series=\"{at}\"}}"));
                }
                family.checksum(&format!("{name}{{series=\"0\"}}"));
            }
            Kind::Histogram => {
                for at in 4..series.max(4) {
                    family.version(&format!("{name}_bucket{{le=\"{}\"}}", at - 3));
                }
                family.version(&format!("{name}_bucket{{le=\"+Inf\"}}"));
                family.checksum(&format!("{name}_sum"));
                family.version(&format!("{name}_count"));
            }
            Kind::Summary => {
                for at in 2..series.max(3) {
                    family.version(&format!("{name}{{quantile=\"0.{:03}\"}}", (at - 1) % 1000));
                }
                family.checksum(&format!("{name}_sum"));
                family.version(&format!("{name}_count"));
            }
        }
        family
    }

    fn text(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// Appends a sample and returns where its digits stand.
    fn sample(&mut self, series: &str) -> usize {
        self.lines += 1;
        self.text(series);
        self.text(" ");
        let at = self.text.len();
        self.text.extend_from_slice(&[b'0'; DIGITS]);
        self.text("\n");
        at
    }

    fn version(&mut self, series: &str) {
        let at = self.sample(series);
        self.versions.push(at);
    }

    fn checksum(&mut self, series: &str) {
        self.checksum = self.sample(series);
    }

    /// Appends it to a body.
    fn render(&self, group: Group, version: Version, digits: &[u8; DIGITS], body: &mut Vec<u8>) {
        let begin = body.len();
        body.extend_from_slice(&self.text);
        for at in &self.versions {
            body[begin + at..begin + at + DIGITS].copy_from_slice(digits);
        }
        let at = begin + self.checksum;
        body[at..at + DIGITS].copy_from_slice(&decimal(checksum(group, self.slot, version)));
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl Layout {
    /// The class of a group; `None` for a number that no group of this run has.
    pub fn class(&self, group: Group) -> Option<&Class> {
        self.classes.get(group.class())
    }

    /// Appends the body of a push of that shape.
    pub fn render(&self, group: Group, shape: usize, version: Version, body: &mut Vec<u8>) {
        let class = &self.classes[group.class()];
        let digits = decimal(version.0);
        for at in &class.shapes[shape] {
            class.families[*at].render(group, version, &digits, body);
        }
    }

    /// How long that body is.
    pub fn body_bytes(&self, group: Group, shape: usize) -> usize {
        let class = &self.classes[group.class()];
        class.shapes[shape].iter().map(|at| class.families[*at].bytes()).sum()
    }

    /// The path of a group, below the prefix of the gateway.
    pub fn path(&self, group: Group) -> String {
        format!("/metrics/job/loadtest/run/{}/instance/{group}", self.run)
    }
}

/// What the sample with the checksum shows: below 2^48, never 0.
pub fn checksum(group: Group, slot: usize, version: Version) -> u64 {
    let mut x = version.0 ^ (u64::from(group.0) << 20) ^ ((slot as u64) << 52);
    // The finisher of splitmix64.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 16) | 1
}

fn decimal(mut value: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_who_wrote_it_in_every_line() {
        let layout = Layout { classes: vec![Class::new("a", 4, 6, true)], run: "r".to_owned() };
        let (group, version) = (Group::new(0, 7), Version::new(3, 41));
        let mut body = Vec::new();
        layout.render(group, 0, version, &mut body);
        assert_eq!(body.len(), layout.body_bytes(group, 0));
        let text = String::from_utf8(body).expect("UTF-8");
        let values: Vec<u64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number"))
            .collect();
        let lines: u32 = layout.classes[0].families.iter().map(|family| family.lines).sum();
        assert_eq!(values.len(), lines as usize);
        let checksums = values.iter().filter(|value| **value != version.0).count();
        assert_eq!(checksums, 4, "{text}");
        assert_eq!((version.writer(), version.sequence()), (3, Some(41)));
    }
}
