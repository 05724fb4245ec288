//! What a shard shows: its lines to scrapes, its groups to the API and the web page.

use std::sync::Arc;

use crate::exposition::model::MetricType;

use super::Shard;
use super::registry::SharedFamily;
use super::segments::FamilyText;

/// One family as a core hands it over to a scrape: nothing is copied, and what is held never changes.
#[derive(Debug, Clone)]
pub struct FamilySnapshot {
    /// Name and help.
    pub shared: Arc<SharedFamily>,
    /// The type of the lines in `text`.
    pub kind: MetricType,
    /// The lines.
    pub text: Arc<FamilyText>,
}

/// One group, copied out.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// The grouping key's text, see [`super::key::GroupingKey::text`].
    pub key: Arc<str>,
    /// Unix seconds of the last successful push, 0 when there was none.
    pub push_seconds: f64,
    /// Unix seconds of the last refused push, 0 when there was none.
    pub failure_seconds: f64,
    /// Unix seconds of its first push, successful or not.
    pub created_seconds: f64,
    /// The families it holds, without both push times.
    pub families: Vec<FamilyView>,
}

/// One family of a group, copied out.
#[derive(Debug, Clone)]
pub struct FamilyView {
    /// Name and shown help.
    pub shared: Arc<SharedFamily>,
    /// The type.
    pub kind: MetricType,
    /// The help text this group pushed.
    pub help: Option<Arc<str>>,
    /// Unix seconds of the push that brought it.
    pub push_seconds: f64,
    /// The rendered lines.
    pub text: Vec<u8>,
    /// Its protobuf, where the lines cannot give everything back.
    pub exact: Option<Arc<[u8]>>,
}

impl Shard {
    /// Everything there is to scrape, sorted by name. Costs a pointer per family.
    pub fn snapshot(&self) -> Vec<FamilySnapshot> {
        let families = self.order.iter().map(|number| &self.families[*number]);
        families
            .filter(|family| !family.text.is_empty())
            .map(|family| FamilySnapshot {
                shared: family.shared.clone(),
                kind: family.kind,
                text: family.text.clone(),
            })
            .collect()
    }

    /// At least one group, then more while they are smaller than `bytes_max`, from a place in the shard's own order on;
    /// with the place to go on from, `None` at the end.
    pub fn groups(&self, from: u32, bytes_max: usize) -> (Vec<GroupView>, Option<u32>) {
        let (mut views, mut bytes) = (Vec::new(), 0);
        for (number, group) in self.groups.from(from) {
            if bytes >= bytes_max {
                return (views, Some(number));
            }
            let families: Vec<FamilyView> = group
                .held
                .iter()
                .map(|held| {
                    let family = &self.families[held.family];
                    FamilyView {
                        shared: family.shared.clone(),
                        kind: family.kind,
                        help: family.help(held.help).cloned(),
                        push_seconds: held.push_seconds,
                        exact: family.text.exact(number),
                        text: family.text.run(number).collect::<Vec<_>>().concat(),
                    }
                })
                .collect();
            bytes += group.key.len() + families.iter().map(|family| family.text.len() + 64).sum::<usize>();
            views.push(GroupView {
                key: group.key.clone(),
                push_seconds: group.push_seconds,
                failure_seconds: group.failure_seconds,
                created_seconds: group.created_seconds,
                families,
            });
        }
        (views, None)
    }

    /// The keys of some groups, for a wipe.
    pub fn some_keys(&self, count_max: usize) -> Vec<Arc<str>> {
        self.groups.from(0).take(count_max).map(|(_, group)| group.key.clone()).collect()
    }
}
