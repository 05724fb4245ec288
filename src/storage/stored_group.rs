//! Reading the record of a group into its shard. See [`super::record_writer`] for the other direction.

use sluicegate_engine::record::{Family, Kind, Record};

use crate::exposition::model::MetricType;
use crate::shard::key::GroupingKey;
use crate::shard::view::GroupTimes;
use crate::shard::{FamilyLines, GroupHead, LoadError, Shard};

/// A group as it was read from a store.
#[derive(Debug, Clone)]
pub(crate) struct StoredGroup<'a> {
    head: GroupHead,
    record: Record<'a>,
}

impl<'a> StoredGroup<'a> {
    /// A group that was stored under the text of a grouping key.
    pub(crate) fn new(key: &str, record: Record<'a>) -> Self {
        let times = GroupTimes {
            push_seconds: record.push_seconds,
            failure_seconds: record.failure_seconds,
            created_seconds: record.created_seconds,
        };
        Self { head: GroupHead::new(GroupingKey::from_text(key.into()), times), record }
    }

    pub(crate) fn key(&self) -> &GroupingKey {
        self.head.key()
    }

    /// Whether the group needs a side shard.
    pub(crate) fn needs_side(&self) -> bool {
        let families = &self.record.families;
        Shard::load_needs_side(families.len(), families.iter().map(|family| family.text.len()).sum())
    }

    pub(crate) fn home(&self, cores: usize) -> usize {
        self.head.home(cores)
    }

    pub(crate) fn record(&self) -> &Record<'a> {
        &self.record
    }

    /// The group without its families.
    pub(crate) fn without_families(&self) -> Self {
        let record = Record { families: Vec::new(), ..self.record };
        Self { record, ..self.clone() }
    }

    /// Loads the group into the shard of its home core.
    ///
    /// # Errors
    /// The group contradicts a group that was loaded before.
    pub(crate) fn load(&self, shard: &mut Shard) -> Result<(), LoadError> {
        shard.load(&self.head, self.record.families.iter().map(lines_of))
    }
}

fn lines_of<'a>(family: &Family<'a>) -> FamilyLines<'a> {
    FamilyLines {
        name: family.name,
        kind: type_of(family.kind),
        help: family.help,
        push_seconds: family.push_seconds,
        text: family.text,
        exact: family.exact,
    }
}

fn type_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Summary => MetricType::Summary,
        Kind::Untyped => MetricType::Untyped,
        Kind::Histogram => MetricType::Histogram,
        Kind::GaugeHistogram => MetricType::GaugeHistogram,
    }
}
