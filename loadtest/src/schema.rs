//! Groups, families and bodies of a run, arranged so that a scrape reveals which push each sample came from.
//!
//! The value of a sample is the [`PushId`] of its push, an integer that a float represents exactly. One sample of each
//! family carries a checksum over group, family and push instead. The checker can therefore recognise an incomplete family,
//! or a family mixed from two pushes, without a record of the bodies that were sent.

use std::fmt::{self, Display, Formatter};

/// Digits of a value in a body. The width is fixed so that values can be patched in place; leading zeros are valid.
const DIGITS: usize = 16;
/// Number of groups in a class; the class and the number share one integer.
const GROUPS_PER_CLASS_MAX: u32 = 10_000_000;

/// Identifies a push by its writer and its sequence number within that writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PushId(pub u64);

impl PushId {
    /// Both numbers start at 0. There are fewer than 2^20 writers, so an identifier is below 2^52.
    pub fn new(writer: usize, sequence: usize) -> Self {
        Self(((writer as u64) << 32) | (sequence as u64 + 1))
    }

    /// The writer that sent the push.
    pub fn writer(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// The number of the push among the requests of its writer; `None` for a value that no writer sends.
    pub fn sequence(self) -> Option<usize> {
        (self.0 as u32).checked_sub(1).map(|sequence| sequence as usize)
    }
}

impl Display for PushId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.sequence() {
            Some(sequence) => write!(f, "{}.{sequence}", self.writer()),
            None => write!(f, "?{}", self.0),
        }
    }
}

/// Identifies a group by its class and its number within that class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group with a number in a class.
    pub fn new(class: usize, number: u32) -> Self {
        Self(class as u32 * GROUPS_PER_CLASS_MAX + number % GROUPS_PER_CLASS_MAX)
    }

    /// Index of its class in [`Schema::classes`].
    pub fn class(self) -> usize {
        (self.0 / GROUPS_PER_CLASS_MAX) as usize
    }
}

impl Display for GroupId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "g{:08}", self.0)
    }
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// `gauge`
    Gauge,
    /// `counter`
    Counter,
    /// `histogram`
    Histogram,
    /// `summary`
    Summary,
}

impl MetricType {
    /// All types; the families of a class use them in this order, repeatedly.
    pub const ALL: [Self; 4] = [Self::Gauge, Self::Counter, Self::Histogram, Self::Summary];

    /// The name in a `# TYPE` line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// A family and its text in a body.
#[derive(Debug)]
pub struct Family {
    /// Metric name.
    pub name: String,
    /// Type.
    pub metric_type: MetricType,
    /// Index in the state of a group. Two families that contest one name share a slot.
    pub slot: usize,
    /// Number of sample lines that a scrape must show.
    pub lines: u32,
    text: Vec<u8>,
    /// Offsets in `text` of the values that are the push's identifier.
    id_offsets: Vec<usize>,
    /// Offset in `text` of the value that is the checksum.
    checksum_offset: usize,
}

/// Groups that receive pushes with the same families.
#[derive(Debug)]
pub struct GroupClass {
    /// All families, in slot order.
    pub families: Vec<Family>,
    /// The sets of families that a push may carry, by index into `families`. Shape 0 is all of them.
    pub shapes: Vec<Vec<usize>>,
    /// The same sets by slot.
    pub slots_of_shape: Vec<Vec<usize>>,
    /// Number of slots in the state of a group.
    pub slot_count: usize,
}

/// All groups of a run and what they may contain.
#[derive(Debug)]
pub struct Schema {
    /// Indexed by [`GroupId::class`].
    pub classes: Vec<GroupClass>,
    /// Distinguishes the groups of this run from those of other runs.
    pub run: String,
}

impl GroupClass {
    /// A class with one shape: `families` families of about `series` lines each.
    pub fn new(prefix: &str, families: usize, series: usize) -> Self {
        let families: Vec<_> = (0..families)
            .map(|at| Family::new(format!("lt_{prefix}_{at}"), MetricType::ALL[at % 4], at, series))
            .collect();
        let all = (0..families.len()).collect();
        Self::from_shapes(families, vec![all])
    }

    /// Like [`GroupClass::new`], with further shapes for some subsets of the families.
    pub fn with_subsets(prefix: &str, families: usize, series: usize) -> Self {
        let Self { families, mut shapes, .. } = Self::new(prefix, families, series);
        if families.len() > 1 {
            let all = shapes[0].clone();
            let half = families.len() / 2;
            shapes.push(all[..half].to_vec());
            shapes.push(all[half..].to_vec());
            shapes.push(all.iter().copied().step_by(2).collect());
            shapes.push(Vec::new());
        }
        Self::from_shapes(families, shapes)
    }

    /// Like [`GroupClass::with_subsets`], with a last family that some shapes push as a gauge and others as a counter.
    pub fn with_contested_family(prefix: &str, families: usize, series: usize) -> Self {
        let Self { mut families, mut shapes, .. } = Self::with_subsets(prefix, families, series);
        let (name, slot) = (format!("lt_{prefix}_contested"), families.len());
        for metric_type in [MetricType::Gauge, MetricType::Counter] {
            families.push(Family::new(name.clone(), metric_type, slot, 2));
        }
        shapes.push(vec![0, slot]);
        shapes.push(vec![0, slot + 1]);
        Self::from_shapes(families, shapes)
    }

    fn from_shapes(families: Vec<Family>, shapes: Vec<Vec<usize>>) -> Self {
        let slot_count = families.iter().map(|family| family.slot + 1).max().unwrap_or(0);
        let by_slot = |shape: &Vec<usize>| shape.iter().map(|at| families[*at].slot).collect();
        let slots_of_shape = shapes.iter().map(by_slot).collect();
        Self { families, shapes, slots_of_shape, slot_count }
    }

    /// Whether the gateway may reject pushes of this shape because another group has the name with another type.
    pub fn is_contested(&self, shape: usize) -> bool {
        self.shapes[shape].iter().any(|at| self.families[*at].name.ends_with("_contested"))
    }
}

impl Family {
    fn new(name: String, metric_type: MetricType, slot: usize, series: usize) -> Self {
        let mut family = Self {
            text: Vec::new(),
            name,
            metric_type,
            slot,
            lines: 0,
            id_offsets: Vec::new(),
            checksum_offset: 0,
        };
        let name = family.name.clone();
        let type_name = metric_type.name();
        family.push_text(&format!("# HELP {name} Made by sluicegate-loadtest.\n# TYPE {name} {type_name}\n"));
        // Each family has at least one line with the identifier and one with the checksum.
        match metric_type {
            MetricType::Gauge | MetricType::Counter => {
                for at in 1..series.max(2) {
                    family.push_id_sample(&format!("{name}{{series=\"{at}\"}}"));
                }
                family.push_checksum_sample(&format!("{name}{{series=\"0\"}}"));
            }
            MetricType::Histogram => {
                for at in 4..series.max(4) {
                    family.push_id_sample(&format!("{name}_bucket{{le=\"{}\"}}", at - 3));
                }
                family.push_id_sample(&format!("{name}_bucket{{le=\"+Inf\"}}"));
                family.push_checksum_sample(&format!("{name}_sum"));
                family.push_id_sample(&format!("{name}_count"));
            }
            MetricType::Summary => {
                for at in 2..series.max(3) {
                    family.push_id_sample(&format!("{name}{{quantile=\"0.{:03}\"}}", (at - 1) % 1000));
                }
                family.push_checksum_sample(&format!("{name}_sum"));
                family.push_id_sample(&format!("{name}_count"));
            }
        }
        family
    }

    fn push_text(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// Appends a sample and returns the offset of its value.
    fn push_sample(&mut self, series: &str) -> usize {
        self.lines += 1;
        self.push_text(series);
        self.push_text(" ");
        let offset = self.text.len();
        self.text.extend_from_slice(&[b'0'; DIGITS]);
        self.push_text("\n");
        offset
    }

    fn push_id_sample(&mut self, series: &str) {
        let offset = self.push_sample(series);
        self.id_offsets.push(offset);
    }

    fn push_checksum_sample(&mut self, series: &str) {
        self.checksum_offset = self.push_sample(series);
    }

    /// Appends the family to a body. `id_digits` is the push's identifier in decimal.
    fn render(&self, group: GroupId, push: PushId, id_digits: &[u8; DIGITS], body: &mut Vec<u8>) {
        let begin = body.len();
        body.extend_from_slice(&self.text);
        for offset in &self.id_offsets {
            body[begin + offset..begin + offset + DIGITS].copy_from_slice(id_digits);
        }
        let offset = begin + self.checksum_offset;
        body[offset..offset + DIGITS].copy_from_slice(&decimal(checksum(group, self.slot, push)));
    }
}

impl Schema {
    /// The class of a group; `None` for a group that this run does not have.
    pub fn class(&self, group: GroupId) -> Option<&GroupClass> {
        self.classes.get(group.class())
    }

    /// Whether the gateway may reject pushes of a shape to a group; see [`GroupClass::is_contested`].
    pub fn is_contested(&self, group: GroupId, shape: usize) -> bool {
        self.class(group).is_some_and(|class| class.is_contested(shape))
    }

    /// The type that a push of a shape gives to a slot; `None` if the push does not carry that slot.
    pub fn type_in_slot(&self, group: GroupId, shape: usize, slot: usize) -> Option<MetricType> {
        let class = self.class(group)?;
        let mut families = class.shapes.get(shape)?.iter().map(|at| &class.families[*at]);
        families.find(|family| family.slot == slot).map(|family| family.metric_type)
    }

    /// Appends the body of a push.
    pub fn render_body(&self, group: GroupId, shape: usize, push: PushId, body: &mut Vec<u8>) {
        let class = &self.classes[group.class()];
        let id_digits = decimal(push.0);
        for at in &class.shapes[shape] {
            class.families[*at].render(group, push, &id_digits, body);
        }
    }

    /// Length of the body of a push.
    pub fn body_bytes(&self, group: GroupId, shape: usize) -> usize {
        let class = &self.classes[group.class()];
        class.shapes[shape].iter().map(|at| class.families[*at].text.len()).sum()
    }

    /// Path of a group, without the gateway's route prefix.
    pub fn group_path(&self, group: GroupId) -> String {
        format!("/metrics/job/loadtest/run/{}/instance/{group}", self.run)
    }
}

/// Value of the checksum sample: below 2^48 and never 0.
pub fn checksum(group: GroupId, slot: usize, push: PushId) -> u64 {
    let mut x = push.0 ^ (u64::from(group.0) << 20) ^ ((slot as u64) << 52);
    // The finaliser of splitmix64.
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
    fn every_line_of_a_body_identifies_its_push() {
        let schema = Schema { classes: vec![GroupClass::with_subsets("a", 4, 6)], run: "r".to_owned() };
        let (group, push) = (GroupId::new(0, 7), PushId::new(3, 41));
        let mut body = Vec::new();
        schema.render_body(group, 0, push, &mut body);
        assert_eq!(body.len(), schema.body_bytes(group, 0));
        let text = String::from_utf8(body).expect("UTF-8");
        let values: Vec<u64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').expect("a value").1.parse().expect("a number"))
            .collect();
        let lines: u32 = schema.classes[0].families.iter().map(|family| family.lines).sum();
        assert_eq!(values.len(), lines as usize);
        let checksums = values.iter().filter(|value| **value != push.0).count();
        assert_eq!(checksums, 4, "{text}");
        assert_eq!((push.writer(), push.sequence()), (3, Some(41)));
    }
}
