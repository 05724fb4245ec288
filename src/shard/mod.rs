//! The state of one core: its groups with their rendered lines, and the rules by which pushes change them.
//!
//! A shard does no IO, reads no clock and never waits. If a push has to wait, its [`Decision`] says for what, and the caller lets
//! the shard decide again. Cores share the [`registry::Registry`]; everything else belongs to one thread.
//!
//! * [`key`] — grouping keys; the home core of a group.
//! * [`push`], [`outcome`] — a push on its way to its shard, and the result of a command.
//! * `plan` — what a push would change: [`Shard::decide`].
//! * `apply`, `text_edit` — changing the tables, then the text in slices.
//! * [`shapes`], `shaped`, `switch` — bodies that differ only in their numbers, and applying them.
//! * `pending`, `group_set` — numbers that are not in the text yet, and merging them in rounds.
//! * `lookups`, `duplicates` — equal series in two groups.
//! * [`registry`] — the names that all cores must agree on.
//! * `tables`, `groups`, `group_families`, `large_map`, [`segments`], `series` — groups and families, and the text of a family.
//! * `pace` — long computations in slices.
//! * [`sides`], `moves` — a shard of its own for a very large group.
//! * [`view`], [`list`] — reading: snapshots, copies and pages of groups.
//! * `load` — inserting stored groups at start.

mod apply;
mod duplicates;
mod group_families;
mod group_set;
mod groups;
mod growth;
pub(crate) mod hash;
mod helps;
pub mod key;
mod large_map;
mod large_table;
pub mod limits;
pub mod list;
mod load;
mod lookups;
mod moves;
pub mod outcome;
mod pace;
mod pending;
mod plan;
pub mod push;
pub mod registry;
mod retired;
pub mod segments;
mod series;
mod sets;
mod shaped;
pub mod shapes;
pub mod sides;
mod slab;
mod small_map;
mod switch;
mod tables;
mod text_edit;
pub mod view;

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod slice_tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use duplicates::{DuplicateCheck, LongRun, SeriesLookup};
pub use load::{FamilyLines, GroupHead, LoadError};
pub use lookups::Lookups;
pub use pace::Pace;
pub use plan::{Decision, PushAttempt};
pub use tables::{NO_SHAPE_ID, StoredBytes};
pub use text_edit::{Applied, Change, ChangedPart, TextEdit};
pub use view::{FamilyName, FamilySnapshot, FamilyView, GroupSlice, GroupView, LargeGroup};

use crate::exposition::model::MetricType;
use crate::telemetry::OwnMetric;
use groups::Groups;
use large_map::LargeMap;
use registry::{Core, Registry, SetId};
use retired::RetiredSeries;
use segments::Segment;
use slab::{Number, Slab};
use tables::LocalFamily;

pub use crate::exposition::names::{FAILURE_TIME, PUSH_TIME};
/// Both families have one series for each group, and the help of the official program.
pub(crate) const METRICS: &[OwnMetric] = &[PUSH_TIME_METRIC, FAILURE_TIME_METRIC];
pub(crate) const PUSH_TIME_METRIC: OwnMetric =
    OwnMetric::gauge(PUSH_TIME, "Last Unix time when changing this group in the Pushgateway succeeded.")
        .with_labels(GROUP_LABELS);
pub(crate) const FAILURE_TIME_METRIC: OwnMetric =
    OwnMetric::gauge(FAILURE_TIME, "Last Unix time when changing this group in the Pushgateway failed.")
        .with_labels(GROUP_LABELS);
const GROUP_LABELS: &[&str] = &["job", "instance", "…"];
// The numbers of both families on each core, which has them from the start.
const PUSH_TIME_NUMBER: Number = 0;
const FAILURE_TIME_NUMBER: Number = 1;

/// The groups that live on one core.
#[derive(Debug)]
pub struct Shard {
    core: Core,
    registry: Arc<Registry>,
    groups: Groups,
    families: Slab<LocalFamily>,
    families_by_name: LargeMap<Arc<str>, Number>,
    /// All families in the order of the exposition.
    order: BTreeMap<Arc<str>, Number>,
    /// Lists of families that groups share.
    shared_lists: group_families::SharedLists,
    sets: sets::LocalSets,
    /// The shapes that groups have.
    shapes: shapes::LocalShapes,
    pending: pending::Pending,
    /// Shared by the shards of a core.
    retired_series: Arc<Mutex<RetiredSeries>>,
    counts: Counts,
    /// Segments that a command replaced and that are still to be freed. Empty between two commands.
    replaced: Vec<Arc<Segment>>,
    /// The most families that a group ever had.
    families_max: usize,
    /// The most bytes that a group ever had.
    bytes_max: u64,
    /// The bytes of help texts, and with limits also those of exact protobuf.
    extra_bytes: i64,
    /// What this core has added to the totals.
    accounted: limits::Amounts,
    loading: load::Loading,
    persistence: Persistence,
}

/// Whether commands are committed to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// There is no store.
    InMemory,
    /// What a command releases is retired until its commit has ended, and groups must fit in a record.
    Stored,
}

/// The size of a shard, or of several.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The number of groups.
    pub groups: usize,
    /// The number of samples, including push times.
    pub series: usize,
    /// The number of segments.
    pub segments: usize,
    /// The bytes of text.
    pub bytes: usize,
    /// The number of families, including push times.
    pub families: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.groups += other.groups;
        self.series += other.series;
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.families += other.families;
    }
}

impl Shard {
    /// An empty shard. The registry must contain both push-time families. With a store, the caller keeps [`Applied::commit`] until
    /// the store has recorded the command.
    pub fn new(core: Core, registry: Arc<Registry>, persistence: Persistence) -> Self {
        let mut shard = Self {
            core,
            registry,
            groups: Groups::default(),
            families: Slab::default(),
            families_by_name: LargeMap::default(),
            order: BTreeMap::new(),
            shared_lists: group_families::SharedLists::default(),
            sets: sets::LocalSets::default(),
            shapes: shapes::LocalShapes::default(),
            pending: pending::Pending::default(),
            retired_series: Arc::default(),
            counts: Counts::default(),
            replaced: Vec::new(),
            families_max: 0,
            bytes_max: 0,
            extra_bytes: 0,
            accounted: limits::Amounts::default(),
            loading: load::Loading::default(),
            persistence,
        };
        for name in [PUSH_TIME, FAILURE_TIME] {
            shard.add_family(shard.registry.own_family(name), MetricType::Gauge);
        }
        shard
    }

    /// The size of the shard now.
    pub fn counts(&self) -> Counts {
        Counts { groups: self.groups.len(), families: self.families.len(), ..self.counts }
    }

    fn is_stored(&self) -> bool {
        self.persistence == Persistence::Stored
    }

    fn add_family(&mut self, shared: Arc<registry::SharedFamily>, kind: MetricType) -> Number {
        let name = shared.name.clone();
        let number = self.families.insert(LocalFamily::new(shared, kind));
        self.order.insert(name.clone(), number);
        self.families_by_name.insert(name, number);
        number
    }

    fn remove_family(&mut self, number: Number) {
        let Some(LocalFamily { shared, .. }) = self.families.remove(number) else { return };
        self.order.remove(&shared.name);
        self.families_by_name.remove(&shared.name);
    }

    /// The number of a set of label names, given as [`key::GroupingKey::names`]; see [`sets::LocalSets::id`].
    fn set_id(&mut self, names: &str) -> SetId {
        self.sets.id(names, &self.registry)
    }
}
