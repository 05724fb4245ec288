//! The state of one core: its groups and their rendered lines, and the rules by which pushes change them.
//!
//! Does no IO, knows no clock and never waits: what must wait is said by [`Decision`], and the caller tries again. Cores share
//! the [`registry::Registry`]; everything else belongs to one thread.

mod apply;
mod duplicates;
pub mod key;
pub mod list;
mod plan;
pub mod push;
pub mod registry;
pub mod restore;
pub mod segments;
mod series;
pub mod stored;
mod tables;

mod view;

#[cfg(test)]
mod model_tests;

use std::sync::Arc;

pub use apply::TextEdit;
pub use duplicates::{DuplicateCheck, SeriesLookup};
pub use plan::{Decision, PushAttempt};
pub use view::{FamilySnapshot, FamilyView, GroupView};

use crate::exposition::model::MetricType;
use crate::telemetry::OwnMetric;
use duplicates::RetiredSeries;
use registry::{Core, Registry, SetId};
use tables::{Group, LocalFamily, Map, Number, Slab};

/// Name of the family with the time of each group's last successful push.
pub const PUSH_TIME: &str = "push_time_seconds";
/// Name of the family with the time of each group's last refused push.
pub const FAILURE_TIME: &str = "push_failure_time_seconds";
/// Both families are written by the shard, with one series for each group and the help of the official program.
pub(crate) const METRICS: &[OwnMetric] = &[PUSH_TIME_METRIC, FAILURE_TIME_METRIC];
pub(crate) const PUSH_TIME_METRIC: OwnMetric =
    OwnMetric::gauge(PUSH_TIME, "Last Unix time when changing this group in the Pushgateway succeeded.")
        .with_labels(GROUP_LABELS);
pub(crate) const FAILURE_TIME_METRIC: OwnMetric =
    OwnMetric::gauge(FAILURE_TIME, "Last Unix time when changing this group in the Pushgateway failed.")
        .with_labels(GROUP_LABELS);
const GROUP_LABELS: &[&str] = &["job", "instance", "…"];
/// The local numbers of the two: they are there from the start.
const PUSH_TIME_NUMBER: Number = 0;
const FAILURE_TIME_NUMBER: Number = 1;

/// The groups that live on one core.
#[derive(Debug)]
pub struct Shard {
    core: Core,
    registry: Arc<Registry>,
    groups: Slab<Group>,
    groups_by_key: Map<Arc<str>, Number>,
    families: Slab<LocalFamily>,
    families_by_name: Map<Arc<str>, Number>,
    /// The families with text, by name: the order of the exposition.
    order: Vec<Number>,
    sets_by_names: Map<String, SetId>,
    retired_series: Vec<RetiredSeries>,
    /// The latest time given to a push; times never run backwards.
    latest_seconds: f64,
    counts: Counts,
    restoring: restore::Restoring,
    /// Whether commands are committed to a store: what they give up then waits for that, too.
    is_stored: bool,
}

/// How much a shard holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Groups.
    pub groups: usize,
    /// Lines of samples, push times included.
    pub series: usize,
    /// Segments of text.
    pub segments: usize,
    /// Bytes of text.
    pub bytes: usize,
    /// Family names, push times included.
    pub families: usize,
}

impl Shard {
    /// An empty shard. The registry must know both push-time families. With `is_stored`, whoever drives the shard ends the commit of
    /// each command, see [`TextEdit::commit`].
    pub fn new(core: Core, registry: Arc<Registry>, is_stored: bool) -> Self {
        let mut shard = Self {
            core,
            registry,
            groups: Slab::default(),
            groups_by_key: Map::default(),
            families: Slab::default(),
            families_by_name: Map::default(),
            order: Vec::new(),
            sets_by_names: Map::default(),
            retired_series: Vec::new(),
            latest_seconds: 0.0,
            counts: Counts::default(),
            restoring: restore::Restoring::default(),
            is_stored,
        };
        for name in [PUSH_TIME, FAILURE_TIME] {
            shard.add_family(shard.registry.own_family(name), MetricType::Gauge);
        }
        shard
    }

    /// How much the shard holds now.
    pub fn counts(&self) -> Counts {
        Counts { groups: self.groups.len(), families: self.families.len(), ..self.counts }
    }

    fn add_family(&mut self, shared: Arc<registry::SharedFamily>, kind: MetricType) -> Number {
        let name = shared.name.clone();
        let number = self.families.insert(LocalFamily::new(shared, kind));
        let at = self.order.partition_point(|other| self.families[*other].shared.name < name);
        self.order.insert(at, number);
        self.families_by_name.insert(name, number);
        number
    }

    fn remove_family(&mut self, number: Number) {
        let name = self.families[number].shared.name.clone();
        let at = self.order.partition_point(|other| self.families[*other].shared.name < name);
        self.order.remove(at);
        self.families_by_name.remove(&name);
        self.families.remove(number);
    }

    /// The number of a set of label names, given as [`key::GroupingKey::names`].
    fn set_id(&mut self, names: &str) -> SetId {
        match self.sets_by_names.get(names) {
            Some(id) => *id,
            None => {
                let id = self.registry.set_id(names);
                self.sets_by_names.insert(names.to_owned(), id);
                id
            }
        }
    }
}
