//! What is asked of a shard, and what it answers.

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::sync::Arc;

use crate::exposition::model::MetricType;
use crate::exposition::render::Rendered;

use super::key::GroupingKey;
use super::segments::{NewLines, RUN_BYTES_MAX, Segment, own_segments};

/// How a push treats what the group holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// PUT: the group holds what was pushed and nothing else.
    Replace,
    /// POST: families of the same name are replaced, others stay.
    Merge,
}

/// One push on its way to its home core: parsed, checked within itself and rendered.
#[derive(Debug)]
pub struct Push {
    /// The group.
    pub key: GroupingKey,
    /// Replace or merge.
    pub mode: Mode,
    /// Where it came from, to be told with a refusal.
    pub source: Option<SocketAddr>,
    /// The lines, or why the body contradicts itself.
    pub content: Content,
}

/// What a push brings.
#[derive(Debug)]
pub enum Content {
    /// Families to keep.
    Families(Vec<PushedFamily>, Rendered),
    /// A body that contradicts itself: the group gets a failure time and keeps what it has.
    Refused(String),
}

/// A family of a push. Long runs were cut into segments by the core that accepted the push.
#[derive(Debug)]
pub struct PushedFamily {
    /// Its place in the rendered body.
    pub(super) index: usize,
    /// The type.
    pub(super) kind: MetricType,
    /// Segments of its own, if it is that long.
    pub(super) segments: Vec<Arc<Segment>>,
}

impl Content {
    /// Takes over a rendered body.
    pub fn new(rendered: Rendered) -> Self {
        let families = rendered.families().iter().enumerate().map(|(index, family)| {
            let text = rendered.text(family);
            let segments = match text.len() > RUN_BYTES_MAX {
                true => own_segments(rendered.name(family), family.kind, text, rendered.exact(family)),
                false => Vec::new(),
            };
            PushedFamily { index, kind: family.kind, segments }
        });
        Self::Families(families.collect(), rendered)
    }
}

impl Push {
    pub(super) fn families(&self) -> &[PushedFamily] {
        match &self.content {
            Content::Families(families, _) => families,
            Content::Refused(_) => &[],
        }
    }

    pub(super) fn name(&self, family: &PushedFamily) -> &str {
        let rendered = self.rendered();
        rendered.name(&rendered.families()[family.index])
    }

    pub(super) fn help(&self, family: &PushedFamily) -> Option<&str> {
        let rendered = self.rendered();
        rendered.help(&rendered.families()[family.index])
    }

    pub(super) fn text(&self, family: &PushedFamily) -> &[u8] {
        let rendered = self.rendered();
        rendered.text(&rendered.families()[family.index])
    }

    pub(super) fn lines(&self, family: &PushedFamily) -> NewLines<'_> {
        let rendered = self.rendered();
        match rendered.exact(&rendered.families()[family.index]) {
            _ if !family.segments.is_empty() => NewLines::Segments(family.segments.clone()),
            Some(exact) => NewLines::Exact(self.text(family), exact),
            None => NewLines::Run(self.text(family)),
        }
    }

    /// Bytes of all lines, help texts and protobuf.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.families().iter().map(|family| {
            let exact = self.rendered().exact(&self.rendered().families()[family.index]);
            self.text(family).len() + self.help(family).map_or(0, str::len) + exact.map_or(0, <[u8]>::len)
        });
        bytes.sum::<usize>() as u64
    }

    fn rendered(&self) -> &Rendered {
        match &self.content {
            Content::Families(_, rendered) => rendered,
            Content::Refused(_) => unreachable!("only families have names, and a refused push has none"),
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied.
    Done,
    /// Inconsistent, for this reason: the group was created if need be, and has a failure time.
    Refused(String),
    /// Refused at the door, for this reason: nothing was touched.
    NotAdmitted(String),
    /// The group would become larger than a store can keep: nothing was touched.
    TooLarge,
}
