//! Inserting stored groups at start.
//!
//! Two shortcuts make loading a large store cost little more than copying its lines. Groups of one kind of job are alike, so each
//! family is first looked for where the previous group had it. And the lines of a family are gathered until they fill a segment.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;

use super::growth::help_bytes;
use super::hash::hash_64;
use super::helps::NO_HELP;
use super::key::{GroupingKey, KeyParts};
use super::pace::{Pace, at_once};
use super::registry::{Announcements, ChangeError, FamilyChange, Presence, SharedFamily};
use super::segments::{GatheredRuns, measure};
use super::series::series_of;
use super::slab::Number;
use super::tables::{GroupFamily, StoredBytes};
use super::text_edit::write_time;
use super::view::GroupTimes;
use super::{FAILURE_TIME_NUMBER, PUSH_TIME_NUMBER, Shard};

/// A group to load, without its families. Made before the shard is locked, because reading the key takes a while.
#[derive(Debug, Clone)]
pub struct GroupHead {
    key: GroupingKey,
    parts: KeyParts,
    times: GroupTimes,
}

/// A family of a group to load.
#[derive(Debug, Clone, Copy)]
pub struct FamilyLines<'a> {
    /// The name.
    pub name: &'a str,
    /// The type.
    pub kind: MetricType,
    /// The HELP that the group pushed.
    pub help: Option<&'a str>,
    /// Unix seconds of the push that last replaced it.
    pub push_seconds: f64,
    /// The rendered lines.
    pub text: &'a [u8],
    /// Its protobuf, if the lines cannot reproduce it.
    pub exact: Option<&'a [u8]>,
}

/// Why a group cannot be loaded. The shard is unchanged then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A group that was loaded before has the same push times.
    #[error("the group {{{0}}} has the same push times")]
    SamePushTimes(Arc<str>),
    /// The group contradicts groups that were loaded before.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    /// A collection or commit was running, so the group would have to wait.
    #[error("groups changed while others were loaded")]
    NotQuiet,
}

impl GroupHead {
    /// A group with this key.
    pub fn new(key: GroupingKey, times: GroupTimes) -> Self {
        Self { parts: key.parts(), key, times }
    }

    /// The grouping key.
    pub fn key(&self) -> &GroupingKey {
        &self.key
    }

    /// The home core of the group.
    pub fn home(&self, cores: usize) -> usize {
        self.key.home(cores)
    }
}

/// The state of loading.
#[derive(Debug, Default)]
pub(super) struct Loading {
    /// The families of the previous group, in the order in which they were given.
    previous: Vec<GroupFamily>,
    /// Lines that are not in the text of their families yet, by the numbers of the families.
    gathered: Vec<GatheredRuns>,
}

impl Shard {
    /// Loads a group. The caller loads each group once, then calls [`Shard::end_loading`], and looks for duplicates with
    /// [`Shard::series_hashes`]. `families` is iterated twice.
    ///
    /// # Errors
    /// Returns an error if the group contradicts a group that was loaded before.
    pub fn load<'a>(
        &mut self,
        head: &GroupHead,
        families: impl ExactSizeIterator<Item = FamilyLines<'a>> + Clone,
    ) -> Result<(), LoadError> {
        let GroupHead { key, parts, times } = head;
        let variant = parts.empty_instance_variant.as_ref();
        if let Some(variant) = variant.filter(|variant| self.groups.number_of(variant.text()).is_some()) {
            return Err(LoadError::SamePushTimes(variant.text().clone()));
        }
        let set = self.set_id(&parts.names);
        let mut changes = Vec::new();
        let mut found: SmallVec<[Found; 16]> = SmallVec::with_capacity(families.len());
        for (index, family) in families.clone().enumerate() {
            let on_core = self.find(&family, self.loading.previous.get(index));
            let local = on_core.family.map(|number| &self.families[number]);
            if let Some(other) = local.map(|local| local.kind).filter(|other| *other != family.kind) {
                return Err(Inconsistency::type_conflict(family.name, other, family.kind).into());
            }
            let change = FamilyChange {
                name: family.name,
                presence: if local.is_some() { Presence::Unchanged } else { Presence::Claimed(family.kind) },
                set_added: local.is_none_or(|local| local.groups_of_set(set) == 0).then_some(set),
                help_added: family.help.filter(|_| on_core.help.is_none()).map(Arc::from),
                ..FamilyChange::default()
            };
            if change.set_added.is_some() || change.help_added.is_some() {
                changes.push(change);
            }
            found.push(on_core);
        }
        let added_bytes = at_once(help_bytes(&changes, &Pace::unlimited()));
        let claimed = if changes.is_empty() { Vec::new() } else { self.claim(&changes)? };
        // New families, in the order of their changes and so of `families`.
        let mut claimed = claimed.into_iter().flatten();
        self.extra_bytes += added_bytes;
        let group = self.add_group(key, set, times.created_seconds, 0);
        let mut loaded = Vec::with_capacity(families.len());
        let mut bytes_bound = 0;
        for (family, on_core) in families.zip(found) {
            bytes_bound +=
                family.text.len() + family.help.map_or(0, str::len) + family.exact.map_or(0, <[u8]>::len);
            let number = on_core.family.unwrap_or_else(|| {
                let shared = claimed.next().expect("a family new to the core was claimed at the registry");
                self.add_family(shared, family.kind)
            });
            let local = &mut self.families[number];
            local.add_holder(set);
            let help = match on_core.help {
                Some(index) => {
                    local.helps.add_at(index);
                    index
                }
                None => local.helps.add(family.help),
            };
            loaded.push(GroupFamily { number, help, push_seconds: family.push_seconds });
            self.load_lines(group, number, family.text, family.exact);
        }
        self.loading.previous.clone_from(&loaded);
        let entry = &mut self.groups[group];
        entry.families = loaded.into_iter().collect();
        entry.families.share(&mut self.shared_lists);
        self.families_max = self.families_max.max(entry.families.len());
        entry.bytes_bound = bytes_bound as u64;
        entry.stored =
            StoredBytes { record: u32::try_from(bytes_bound).unwrap_or(u32::MAX), ..StoredBytes::default() };
        self.bytes_max = self.bytes_max.max(bytes_bound as u64);
        entry.push_seconds = times.push_seconds;
        entry.failure_seconds = times.failure_seconds;
        let mut line = Vec::new();
        for (number, seconds) in
            [(PUSH_TIME_NUMBER, times.push_seconds), (FAILURE_TIME_NUMBER, times.failure_seconds)]
        {
            line.clear();
            write_time(
                &mut line,
                &self.families[number].shared.name,
                parts.series_labels.as_bytes(),
                seconds,
            );
            self.load_lines(group, number, &line, None);
        }
        Ok(())
    }

    /// Adds the lines of a group that has none in a family.
    fn load_lines(&mut self, group: Number, family: Number, lines: &[u8], exact: Option<&[u8]>) {
        let all = &mut self.loading.gathered;
        if all.len() <= family as usize {
            all.resize_with(family as usize + 1, GatheredRuns::default);
        }
        let gather = |shard: &mut Self| {
            let gathered = &mut shard.loading.gathered[family as usize];
            gathered.push(&shard.families[family].text, group, lines, exact)
        };
        if gather(self) {
            return;
        }
        self.append_gathered(family);
        if !gather(self) {
            self.add_lines(group, family, lines, exact);
        }
    }

    /// Appends the gathered lines of a family to its text, and updates the counts.
    fn append_gathered(&mut self, family: Number) {
        let gathered = &mut self.loading.gathered[family as usize];
        if gathered.is_empty() {
            return;
        }
        let (bytes, lines) = measure(gathered.text());
        self.counts.bytes += bytes;
        self.counts.series += lines;
        self.counts.segments += 1;
        self.extra_bytes += gathered.exact_len() as i64;
        Arc::make_mut(&mut self.families[family].text).append(gathered);
    }

    /// Ends loading. Until then, only [`Shard::load`] may be called.
    pub fn end_loading(&mut self) {
        for family in 0..self.loading.gathered.len() {
            self.append_gathered(family as Number);
            // Not only at the end: with very many families, the empty buffers would be the largest part of the memory.
            self.loading.gathered[family] = GatheredRuns::default();
        }
        self.loading = Loading::default();
        self.settle_totals();
    }

    /// Whether groups are being loaded.
    pub(super) fn is_loading(&self) -> bool {
        !self.loading.gathered.is_empty()
    }

    /// Looks for a family and its help text on this core, first where the previous group had them.
    fn find(&self, family: &FamilyLines<'_>, previous: Option<&GroupFamily>) -> Found {
        let has_name =
            |number| self.families.get(number).is_some_and(|local| *local.shared.name == *family.name);
        let number = match previous.filter(|previous| has_name(previous.number)) {
            Some(previous) => Some(previous.number),
            None => self.families_by_name.get(family.name).copied(),
        };
        let Some(help) = family.help else { return Found { family: number, help: Some(NO_HELP) } };
        let Some(local) = number.and_then(|number| self.families.get(number)) else {
            return Found { family: None, help: None };
        };
        let has_help = |index: &u32| {
            local.helps.groups(*index) > 0 && local.helps.get(*index).is_some_and(|known| **known == *help)
        };
        let index = previous.map(|previous| previous.help).filter(has_help);
        Found { family: number, help: index.or_else(|| local.helps.find(help)) }
    }

    /// Claims names, sets of label names and help texts. There are no collections or commits yet, so there is nothing to wait for.
    fn claim(&self, changes: &[FamilyChange<'_>]) -> Result<Vec<Option<Arc<SharedFamily>>>, LoadError> {
        let mut announced = Announcements::new();
        let claimed = loop {
            match self.registry.change(self.core, changes, &announced) {
                Ok(claimed) => break Ok(claimed),
                Err(ChangeError::Announced(_, sets)) => {
                    announced.extend(sets.into_iter().map(|set| (set.family.name.clone(), set)));
                }
                Err(ChangeError::Conflict(reason)) => break Err(reason.into()),
                Err(ChangeError::Retired(_)) => break Err(LoadError::NotQuiet),
            }
        };
        at_once(self.registry.withdraw(announced, &Pace::unlimited()));
        claimed
    }

    /// A hash of each series in the families in which duplicates are possible. Series with equal hashes, of one core or of two,
    /// are duplicates, or collide by a chance of about one in 2^64 per pair.
    pub fn series_hashes(&self) -> Vec<u64> {
        let mut hashes = Vec::new();
        for (_, family) in
            self.families.from(FAILURE_TIME_NUMBER + 1).filter(|(_, family)| family.shared.has_several_sets())
        {
            for segment in family.text.segments() {
                let series = series_of(&family.shared.name, family.kind, segment.text());
                hashes.extend(series.map(hash_64));
            }
        }
        hashes
    }
}

/// What a core already has of a family to load.
struct Found {
    family: Option<Number>,
    /// The index of the help text, or [`NO_HELP`] if the family has none. `None` if the help text is new.
    help: Option<u32>,
}
