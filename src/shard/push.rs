//! Pushes on their way to a shard.

// A value; there is no IO in `core`.
use core::net::SocketAddr;
use std::fmt::Debug;
use std::sync::Arc;

use crate::exposition::consistency::Inconsistency;
use crate::exposition::model::MetricType;
use crate::exposition::render::{Rendered, RenderedFamily};

use super::key::GroupingKey;
use super::limits::Amounts;
use super::pace::{LOOK, Pace};
use super::segments::{NewLines, RUN_BYTES_MAX, Segment, own_segments};
use super::shapes::Shape;

/// How a push treats the families that its group already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// PUT: all families of the group are replaced.
    Replace,
    /// POST: families with pushed names are replaced, the others stay.
    Merge,
}

/// A push on its way to its home core: parsed, rendered, and checked for contradictions within the body.
#[derive(Debug)]
pub struct Push {
    /// The group.
    pub key: GroupingKey,
    /// Replace or merge.
    pub mode: Mode,
    /// The address of the client, kept with the group if the push fails.
    pub source: Option<SocketAddr>,
    /// The families, or why there are none.
    pub content: Content,
    /// The shape of the body, if it is known.
    pub shape: Option<Arc<Shape>>,
    /// Where the content is freed; `None` for the thread that drops the push last.
    pub disposal: Option<Box<dyn Disposal>>,
}

/// Frees the content of a large push on a thread that may take its time.
pub trait Disposal: Debug + Send + Sync {
    /// Called once, when nobody needs the push any more.
    fn dispose(self: Box<Self>, content: Content);
}

impl Drop for Push {
    fn drop(&mut self) {
        if let Some(disposal) = self.disposal.take() {
            let empty = Content::Families(Vec::new(), Rendered::default());
            disposal.dispose(std::mem::replace(&mut self.content, empty));
        }
    }
}

/// The content of a push.
#[derive(Debug)]
pub enum Content {
    /// Families with their lines.
    Families(Vec<PushedFamily>, Rendered),
    /// The body contradicts itself, for this reason: the group gets a failure time and is otherwise unchanged.
    Inconsistent(Inconsistency),
}

/// A family of a push. The core that accepted the push has cut long runs into segments.
#[derive(Debug)]
pub struct PushedFamily {
    /// Its index in the rendered body.
    pub(super) index: usize,
    /// The type.
    pub(super) kind: MetricType,
    /// Segments of its own, if it is longer than [`RUN_BYTES_MAX`].
    pub(super) segments: Vec<Arc<Segment>>,
}

impl Content {
    /// The content of a rendered body.
    pub fn new(rendered: Rendered) -> Self {
        let families = rendered.families().iter().enumerate().map(|(index, family)| {
            let text = rendered.text(family);
            let segments = if text.len() > RUN_BYTES_MAX {
                own_segments(rendered.name(family), family.kind, text, rendered.exact(family))
            } else {
                Vec::new()
            };
            PushedFamily { index, kind: family.kind, segments }
        });
        Self::Families(families.collect(), rendered)
    }
}

impl Push {
    /// The number of its families.
    pub fn families_len(&self) -> usize {
        self.families().len()
    }

    /// The bytes of all names, texts and lines.
    pub fn rendered_bytes(&self) -> usize {
        match &self.content {
            Content::Families(_, rendered) => rendered.bytes(),
            Content::Inconsistent(_) => 0,
        }
    }

    /// Whether one of its families is long.
    pub(super) fn is_long(&self) -> bool {
        self.families().iter().any(|family| !family.segments.is_empty())
    }

    pub(super) fn families(&self) -> &[PushedFamily] {
        match &self.content {
            Content::Families(families, _) => families,
            Content::Inconsistent(_) => &[],
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

    /// What a family adds, without its help text.
    pub(super) fn amounts(&self, family: &PushedFamily) -> Amounts {
        let lines = self.lines(family);
        let (bytes, series) = lines.measure();
        Amounts { groups: 0, series: series as i64, bytes: (bytes + lines.exact_len()) as i64 }
    }

    /// The bytes of all lines, help texts and protobuf.
    pub(super) async fn bytes(&self, pace: &Pace) -> u64 {
        let mut bytes = 0;
        for family in self.families() {
            pace.spend(LOOK / 16).await;
            let exact = self.rendered().exact(&self.rendered().families()[family.index]);
            bytes += self.text(family).len()
                + self.help(family).map_or(0, str::len)
                + exact.map_or(0, <[u8]>::len);
        }
        bytes as u64
    }

    /// The memory that the push takes on its way.
    pub fn memory_bytes(&self) -> usize {
        let Content::Families(families, rendered) = &self.content else { return 0 };
        let segments = families.iter().filter(|family| !family.segments.is_empty());
        let copied: usize = segments.map(|family| self.text(family).len()).sum();
        rendered.bytes() + copied + families.len() * (size_of::<PushedFamily>() + size_of::<RenderedFamily>())
    }

    fn rendered(&self) -> &Rendered {
        match &self.content {
            Content::Families(_, rendered) => rendered,
            Content::Inconsistent(_) => unreachable!("only called with a family of the push"),
        }
    }
}
