//! Reading all groups for the API and the web page, in slices that are made only as the client reads.
//!
//! Small groups are copied as a whole. A large group is read family by family, and a long family piece by piece, so no slice holds a
//! core for longer than about a millisecond and a response needs little memory. Each family is shown as it was at one moment. If a
//! push changes a large group while it is read, a family that appears is missing, one that disappears may be shown, and others may
//! be shown as they were before or after the push.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;

use super::pins::{Pinned, Pins};
use super::{Error, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::cores::mailbox::Mailboxes;
use crate::cores::workers::Workers;
use crate::exposition::protobuf::part_of_exact;
use crate::http::produced::{Aborted, Output};
use crate::http::response::Response;
use crate::http::response_body::ResponseBody;
use crate::http::slots::ResponseGuard;
use crate::runtime::yield_now;
use crate::shard::segments::GroupLines;
use crate::shard::{FamilyName, FamilyView, GroupSlice, LargeGroup};

/// What one response holds at most, apart from the names of a large group: the pieces that hyper buffers, and a slice.
const RESPONSE_BYTES: usize = 1 << 20;
/// The memory of a name in the index of a large group.
const NAME_BYTES: usize = size_of::<FamilyName>() + 8;
/// How many families of a large group one command copies at most.
const COPIED_FAMILIES: usize = 256;
/// How much output is gathered before it is sent, and how much is made between two yields.
const OUTPUT_BYTES: usize = 32 * 1024;
/// Pieces up to this size are converted on the core, in less than a millisecond. Longer ones are a single metric.
const CORE_BYTES_MAX: usize = 48 * 1024;
/// How much exact protobuf is converted at a time.
const EXACT_BYTES: usize = 16 * 1024;

/// Reads groups and families from all cores.
pub(super) struct GroupReader {
    mailboxes: Mailboxes,
    workers: Workers,
    pins: Arc<Pins>,
    own_bytes: usize,
    core: usize,
    /// `None` at the end of the core.
    next: Option<u32>,
}

/// The output of a document.
pub(super) struct Writer {
    output: Output,
    gathered: Vec<u8>,
}

/// The families of a large group in a document's order.
pub(super) enum FamilyOrder {
    /// In the order of their numbers; the number to continue from.
    Number(u32),
    /// By name: sorted parts, and the first name of each.
    Name(NameIndex),
}

/// The names of a large group's families, merged from sorted parts. Sorting all of them at once would take too long.
#[derive(Default)]
pub(super) struct NameIndex {
    parts: Vec<std::vec::IntoIter<FamilyName>>,
    firsts: BinaryHeap<Reverse<(Arc<str>, usize, u32)>>,
    /// The families of `firsts`, by part.
    heads: Vec<Option<FamilyName>>,
}

/// A piece of a family, to be converted.
pub(super) enum Piece {
    Lines(Vec<u8>),
    Segment(Arc<Pinned>),
    /// A protobuf family with some metrics.
    Exact(Vec<u8>),
}

/// The pieces of a family.
pub(super) struct Pieces {
    exact: Option<(Arc<[u8]>, usize)>,
    copied: Option<Vec<u8>>,
    shared: std::vec::IntoIter<Arc<Pinned>>,
}

/// A family of a large group.
pub(super) struct CopiedFamily {
    /// The family, without lines that are shared.
    pub view: FamilyView,
    shared: Vec<Arc<Pinned>>,
}

impl Handlers {
    /// A response that `write` produces while the client reads it.
    pub(super) async fn group_list<F>(
        &self,
        request: &Request<'_>,
        write: impl FnOnce(GroupReader, Writer) -> F,
    ) -> Result<Response, Error>
    where
        F: Future<Output = Result<(), Aborted>> + 'static,
    {
        let gateway = &self.gateway;
        let slot = gateway.group_lists.acquire(request.peer.ip()).await.ok_or(Error::TooManyGroupLists)?;
        let pins = Pins::new(&gateway.budget, RESPONSE_BYTES)?;
        let reader = GroupReader {
            mailboxes: gateway.mailboxes.clone(),
            workers: gateway.workers.clone(),
            pins: pins.clone(),
            own_bytes: RESPONSE_BYTES,
            core: 0,
            next: Some(0),
        };
        let body = ResponseBody::produced(|output| write(reader, Writer { output, gathered: Vec::new() }));
        let mut response = Response::new(body);
        response.extensions_mut().insert(ResponseGuard::new(slot, pins));
        Ok(response)
    }
}

impl GroupReader {
    /// The next groups; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<GroupSlice>, Aborted> {
        let from = match self.next {
            Some(from) => from,
            None if self.core + 1 < self.mailboxes.cores() => {
                self.core += 1;
                0
            }
            None => return Ok(None),
        };
        let slice = self.ask(|tx| ShardCommand::CopyGroups(from, tx)).await?;
        self.next = slice.next;
        Ok(Some(slice))
    }

    /// The order of the families by name.
    pub(super) async fn by_name(&mut self, group: &Arc<LargeGroup>) -> Result<FamilyOrder, Aborted> {
        let mut index = NameIndex::default();
        let mut from = Some(0);
        while let Some(start) = from {
            let names = self.ask(|tx| ShardCommand::ListFamilies(group.clone(), start, tx)).await?;
            from = names.last().map(|last| last.number + 1);
            self.resize(self.own_bytes + names.len() * NAME_BYTES)?;
            index.add(names);
        }
        Ok(FamilyOrder::Name(index))
    }

    /// The next families of a large group: their names, and the families that still exist. Empty at the end.
    pub(super) async fn families(
        &mut self,
        group: &Arc<LargeGroup>,
        order: &mut FamilyOrder,
    ) -> Result<Vec<FamilyName>, Aborted> {
        match order {
            FamilyOrder::Name(index) => Ok(index.take(COPIED_FAMILIES)),
            FamilyOrder::Number(from) => {
                let start = *from;
                let names = self.ask(|tx| ShardCommand::ListFamilies(group.clone(), start, tx)).await?;
                *from = names.last().map_or(*from, |last| last.number + 1);
                Ok(names)
            }
        }
    }

    /// Copies families of a large group, at least one of those in `names`. `None` stands for one that no longer exists.
    pub(super) async fn copy(
        &mut self,
        group: &Arc<LargeGroup>,
        names: &[FamilyName],
    ) -> Result<Vec<Option<CopiedFamily>>, Aborted> {
        let names = names[..names.len().min(COPIED_FAMILIES)].to_vec();
        let views = self.ask(|tx| ShardCommand::CopyFamilies(group.clone(), names, tx)).await?;
        let mut pinning = self.pins.share();
        let mut pin = |mut view: FamilyView| {
            let shared = match &mut view.text {
                GroupLines::Segments(segments) => {
                    std::mem::take(segments).into_iter().map(|segment| pinning.pin(segment)).collect()
                }
                GroupLines::Copied(_) => Vec::new(),
            };
            CopiedFamily { view, shared }
        };
        let families: Vec<_> = views.into_iter().map(|view| view.map(&mut pin)).collect();
        if families.is_empty() { Err(Aborted) } else { Ok(families) }
    }

    /// Ends the reading of a large group.
    pub(super) fn end_large(&mut self) -> Result<(), Aborted> {
        drop(self.pins.share());
        self.resize(RESPONSE_BYTES)
    }

    /// Converts a piece with `convert`: here, or on a worker if it is long.
    pub(super) async fn convert(
        &self,
        piece: Piece,
        convert: impl FnOnce(&Piece) -> Vec<u8> + Send + 'static,
    ) -> Result<Vec<u8>, Aborted> {
        if piece.bytes().len() <= CORE_BYTES_MAX {
            return Ok(convert(&piece));
        }
        self.workers.run(move |_| convert(&piece)).await.ok_or(Aborted)
    }

    fn resize(&mut self, own_bytes: usize) -> Result<(), Aborted> {
        self.own_bytes = own_bytes;
        if self.pins.resize(own_bytes) { Ok(()) } else { Err(Aborted) }
    }

    /// Sends a command to the current core and waits for its result.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> ShardCommand) -> Result<T, Aborted> {
        let (tx, rx) = oneshot::channel();
        self.mailboxes.send(self.core, command(tx));
        rx.await.map_err(|_| Aborted)
    }
}

impl Writer {
    /// Writes bytes. Waits if enough is gathered, until the client has read more.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= OUTPUT_BYTES {
            self.flush().await;
            yield_now().await;
        }
    }

    /// Sends what is gathered.
    pub(super) async fn flush(&mut self) {
        self.output.send(Bytes::from(std::mem::take(&mut self.gathered))).await;
    }
}

impl NameIndex {
    fn add(&mut self, mut names: Vec<FamilyName>) {
        names.sort_unstable_by(|a, b| a.shared.name.cmp(&b.shared.name));
        let part = self.parts.len();
        self.parts.push(names.into_iter());
        self.heads.push(None);
        self.advance(part);
    }

    fn advance(&mut self, part: usize) {
        self.heads[part] = self.parts[part].next();
        if let Some(head) = &self.heads[part] {
            self.firsts.push(Reverse((head.shared.name.clone(), part, head.number)));
        }
    }

    fn take(&mut self, count_max: usize) -> Vec<FamilyName> {
        let mut names = Vec::with_capacity(count_max.min(self.firsts.len()));
        while names.len() < count_max
            && let Some(Reverse((_, part, _))) = self.firsts.pop()
        {
            names.extend(self.heads[part].take());
            self.advance(part);
        }
        names
    }
}

impl Pieces {
    pub(super) fn of(CopiedFamily { view, shared }: CopiedFamily) -> Self {
        let (copied, shared) = match (view.text, &view.exact) {
            (_, Some(_)) => (None, Vec::new()),
            (GroupLines::Copied(text), None) => (Some(text), Vec::new()),
            (GroupLines::Segments(_), None) => (None, shared),
        };
        Self { exact: view.exact.map(|exact| (exact, 0)), copied, shared: shared.into_iter() }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some((exact, skip)) = &mut self.exact {
            let (part, next) = part_of_exact(exact, *skip, EXACT_BYTES)?;
            *skip = next;
            return Some(Piece::Exact(part));
        }
        let copied = self.copied.take().map(Piece::Lines);
        copied.or_else(|| self.shared.next().map(Piece::Segment))
    }
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Lines(bytes) | Self::Exact(bytes) => bytes,
            Self::Segment(segment) => (**segment).as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
