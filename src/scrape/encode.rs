//! Encoding: units become the pieces of a response, compressed if the client accepts it.
//!
//! Only text that is not in the cache is translated or compressed: small amounts on the core, larger ones in batches on the worker
//! threads.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;

use super::blocks::{Block, Layout, layout};
use super::bodies::{Body, BodyPart, Input};
use super::cache::PieceCache;
use super::chunks::{ByFirst, join};
use super::merge::{Unit, merge, plain, write_own_family};
use super::translate::{Part, Plan, Source, TranslateError, plan};
use crate::cores::workers::Workers;
use crate::encoding::encode::{Coding, Form, Piece, PieceEncoder};
use crate::encoding::gzip::{Member, Stitched};
use crate::runtime::yield_now;
use crate::shard::FamilySnapshot;
use crate::shard::segments::Segment;
use crate::telemetry::OwnFamily;

/// How much a worker processes at a time; about a millisecond of work.
const BATCH_BYTES: usize = 256 * 1024;
/// Up to this size the core compresses by itself, in about a tenth of a millisecond: waking a worker takes as long.
const CORE_BYTES_MAX: usize = 48 * 1024;

/// A core merges and assembles so many families and segments itself, in about a millisecond.
const CORE_ITEMS_MAX: usize = 8 * 1024;
/// A core copies so many bytes of pieces together itself, in less than a millisecond, if more than [`CHANGED_PIECES_MAX`] changed.
const CORE_COPY_BYTES_MAX: usize = 2 << 20;
/// So few changed pieces cost less than a millisecond, however many others there are: each lets at most two chunks be copied again.
const CHANGED_PIECES_MAX: usize = 8;
/// How many bytes are hashed between two yields.
const HASHED_BYTES_MAX: usize = 4 << 20;
/// The least cost of looking for a block in the cache, in hashed bytes.
const HASHED_BYTES_MIN: usize = 1024;

/// A worker failed. The log has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encoding the scrape failed")]
pub(crate) struct EncodeFailed;

/// Encodes the scrapes of one core.
pub(crate) struct Encoder {
    encoder: RefCell<PieceEncoder>,
    workers: Workers,
    cache: PieceCache,
}

impl Encoder {
    pub(crate) fn new(workers: Workers, cache: PieceCache) -> Self {
        Self { encoder: RefCell::default(), workers, cache }
    }

    /// The units of an exposition in a form, from the snapshots of all cores (each list sorted by name) and the gateway's own
    /// families. Segments that are not cached in that form are translated on the workers.
    ///
    /// The snapshots are dropped before anything else is awaited, here or on a worker: a push would have to copy the segments that
    /// they share.
    ///
    /// # Errors
    /// If a worker failed.
    pub(crate) async fn units(
        &self,
        cores: Vec<Vec<FamilySnapshot>>,
        own: Vec<OwnFamily>,
        form: Form,
    ) -> Result<Vec<Unit>, EncodeFailed> {
        let is_large = is_large(&cores);
        if form.is_stored_text() {
            return self.run(is_large, move || merge(&cores, &own)).await;
        }
        let LookUp { plan, mut parts, missing } =
            self.run(is_large, move || LookUp::new(plan(&cores, &own, form))).await?;
        let batches = missing.into_iter().map(|batch| {
            self.workers.run(move |encoder| {
                let translate = |(at, source): (usize, Source)| Ok((at, source.translate(encoder)?));
                batch.into_iter().map(translate).collect::<Result<Vec<_>, TranslateError>>()
            })
        });
        let mut translated = Vec::new();
        for batch in join_all(batches.collect::<Vec<_>>()).await {
            translated.push(batch.ok_or(EncodeFailed)?.map_err(|error| {
                tracing::error!(%error, "cannot translate rendered lines");
                EncodeFailed
            })?);
        }
        let assemble = move || {
            for (at, part) in translated.into_iter().flatten() {
                parts[at] = Some(part);
            }
            Some(plan.assemble(parts.into_iter().collect::<Option<_>>()?))
        };
        self.run(is_large, assemble).await?.ok_or(EncodeFailed)
    }

    /// Runs a job on a worker if it is large, otherwise at once.
    async fn run<T: Send + 'static>(
        &self,
        is_large: bool,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EncodeFailed> {
        if is_large { self.workers.run(|_| job()).await.ok_or(EncodeFailed) } else { Ok(job()) }
    }

    /// The body of a scrape that is not compressed, from its units.
    ///
    /// # Errors
    /// If a worker failed.
    pub(crate) async fn plain(
        &self,
        units: Vec<Unit>,
        mut bytes: impl FnMut(Arc<Segment>) -> Bytes + Send + 'static,
    ) -> Result<Vec<Bytes>, EncodeFailed> {
        let is_large = units.len() > CORE_ITEMS_MAX;
        let pieces = move || units.into_iter().map(|unit| plain(unit, &mut bytes)).collect::<Option<_>>();
        self.run(is_large, pieces).await?.ok_or(EncodeFailed)
    }

    /// The body of a scrape that is compressed, from the snapshots of all cores and the gateway's own families as in [`Self::units`].
    ///
    /// # Errors
    /// If a worker failed.
    pub(crate) async fn compressed(
        &self,
        cores: Vec<Vec<FamilySnapshot>>,
        own: Vec<OwnFamily>,
        form: Form,
    ) -> Result<Vec<Bytes>, EncodeFailed> {
        let old = self.cache.bodies.get(form, Instant::now());
        let is_comparable = form.is_stored_text() && !is_large(&cores);
        if is_comparable
            && let Some(body) = &old
            && body.input.as_ref().is_some_and(|input| input.is(&cores, &own))
        {
            drop(cores);
            return Ok(self.assemble(&body.parts, form, own_texts(&body.parts, &own)));
        }
        let input = is_comparable.then(|| Input::new(&cores, &own));
        let Layout { blocks, own } = layout(self.units(cores, own, form).await?);
        let (texts, places): (Vec<Bytes>, Vec<_>) =
            own.into_iter().map(|(text, families, at)| (text, (families, at))).unzip();
        let pieces = self.pieces(blocks, form).await?;
        let copies_much = pieces.changed > CHANGED_PIECES_MAX
            && pieces.pieces.iter().map(Piece::encoded_len).sum::<usize>() > CORE_COPY_BYTES_MAX;
        let join = move || join_parts(&pieces.pieces, &places, old.as_deref().map(|old| &old.chunks));
        let (parts, chunks) = self.run(copies_much, join).await?.ok_or(EncodeFailed)?;
        let body = Arc::new(Body { input, parts, chunks });
        self.cache.bodies.put(form, body.clone(), Instant::now());
        Ok(self.assemble(&body.parts, form, texts))
    }

    /// The pieces of blocks in order, from the cache or encoded.
    async fn pieces(&self, blocks: Vec<Block>, form: Form) -> Result<Pieces, EncodeFailed> {
        let mut pieces: Vec<Option<Piece>> = Vec::with_capacity(blocks.len());
        let mut missing: Vec<(usize, Block)> = Vec::new();
        let mut hashed_bytes = 0;
        for (at, block) in blocks.into_iter().enumerate() {
            hashed_bytes +=
                HASHED_BYTES_MIN.max(if let Block::Copied(bytes) = &block { bytes.len() } else { 0 });
            if hashed_bytes >= HASHED_BYTES_MAX {
                hashed_bytes = 0;
                yield_now().await;
            }
            let cached = self.cache.get(&block, form);
            if cached.is_none() {
                missing.push((at, block));
            }
            pieces.push(cached);
        }
        let changed = missing.len();
        if missing.iter().map(|(_, block)| block.len()).sum::<usize>() <= CORE_BYTES_MAX {
            let encoder = &mut self.encoder.borrow_mut();
            for (at, block) in missing {
                pieces[at] = Some(self.cache.encode(block, form, encoder));
            }
        } else {
            for (at, piece) in self.encode_on_workers(missing, form).await? {
                pieces[at] = Some(piece);
            }
        }
        self.cache.end_scrape(form);
        let pieces = pieces.into_iter().collect::<Option<_>>().ok_or(EncodeFailed)?;
        Ok(Pieces { pieces, changed })
    }

    async fn encode_on_workers(
        &self,
        blocks: Vec<(usize, Block)>,
        form: Form,
    ) -> Result<Vec<(usize, Piece)>, EncodeFailed> {
        let batches = into_batches(blocks, Block::len).into_iter().map(|batch| {
            let cache = self.cache.clone();
            self.workers.run(move |encoder| {
                // A scrape that began a little earlier may have encoded it in the meantime.
                let encode = |(at, block)| {
                    let cached = cache.get(&block, form);
                    (at, cached.unwrap_or_else(|| cache.encode(block, form, encoder)))
                };
                batch.into_iter().map(encode).collect::<Vec<_>>()
            })
        });
        let mut pieces = Vec::new();
        for batch in join_all(batches).await {
            pieces.extend(batch.ok_or(EncodeFailed)?);
        }
        Ok(pieces)
    }

    /// The buffers of a body, with the texts of the gateway's own families in their places.
    fn assemble(&self, parts: &[BodyPart], form: Form, own: Vec<Bytes>) -> Vec<Bytes> {
        let encoder = &mut self.encoder.borrow_mut();
        let mut own = own.into_iter();
        let mut member = Member::default();
        let mut frames = Vec::new();
        for part in parts {
            match part {
                BodyPart::Gzip(pieces) => member.extend(pieces),
                BodyPart::Zstd(pieces) => frames.extend_from_slice(pieces),
                BodyPart::Own(_) => match encoder.encode_fast(form.coding, own.next().unwrap_or_default()) {
                    Piece::Gzip(piece) => member.push(&piece),
                    Piece::Plain(frame) | Piece::Zstd { frame, .. } => frames.push(frame),
                },
            }
        }
        if form.coding == Coding::Gzip { member.finish() } else { frames }
    }
}

/// Pieces of a body, and how many of them were encoded for it.
struct Pieces {
    pieces: Vec<Piece>,
    changed: usize,
}

/// The texts of the gateway's own families in the parts of a body.
fn own_texts(parts: &[BodyPart], mut own: &[OwnFamily]) -> Vec<Bytes> {
    let mut texts = Vec::new();
    for part in parts {
        let BodyPart::Own(families) = part else { continue };
        let (families, rest) = own.split_at(*families);
        own = rest;
        let mut text = Vec::new();
        families.iter().for_each(|family| write_own_family(&mut text, family));
        texts.push(text.into());
    }
    texts
}

/// Joins compressed pieces to the parts of a body. `own` says how many of the gateway's own families follow how many pieces. Returns
/// `None` if a piece is not compressed.
fn join_parts(
    pieces: &[Piece],
    own: &[(usize, usize)],
    old: Option<&ByFirst>,
) -> Option<(Vec<BodyPart>, ByFirst)> {
    let mut chunks = ByFirst::new();
    let mut parts = Vec::new();
    let mut done = 0;
    for (families, end) in own.iter().map(|(families, at)| (*families, *at)).chain([(0, pieces.len())]) {
        let mut stitched = Stitched::default();
        let mut frames = Vec::new();
        for piece in &pieces[done..end] {
            match piece {
                Piece::Gzip(deflated) => stitched.push(deflated),
                Piece::Zstd { frame, .. } => frames.push(frame.clone()),
                Piece::Plain(_) => return None,
            }
        }
        done = end;
        if !frames.is_empty() {
            parts.push(BodyPart::Zstd(join(&frames, old, &mut chunks)));
        } else if !stitched.buffers_mut().is_empty() {
            let buffers = stitched.buffers_mut();
            *buffers = join(buffers, old, &mut chunks);
            parts.push(BodyPart::Gzip(stitched));
        }
        if families > 0 {
            parts.push(BodyPart::Own(families));
        }
    }
    Some((parts, chunks))
}

/// Whether merging these snapshots would hold a core too long.
fn is_large(cores: &[Vec<FamilySnapshot>]) -> bool {
    let families: usize = cores.iter().map(Vec::len).sum();
    let segments = || cores.iter().flatten().map(|family| family.text.segments().len()).sum::<usize>();
    families > CORE_ITEMS_MAX || families + segments() > CORE_ITEMS_MAX
}

/// The parts of a plan that are cached, and the others in batches for the workers.
struct LookUp {
    plan: Plan,
    parts: Vec<Option<Part>>,
    missing: Vec<Vec<(usize, Source)>>,
}

impl LookUp {
    fn new(mut plan: Plan) -> Self {
        let sources = std::mem::take(&mut plan.sources);
        let parts: Vec<Option<Part>> = sources.iter().map(Source::cached).collect();
        let missing = sources.into_iter().enumerate().filter(|(at, _)| parts[*at].is_none()).collect();
        Self { plan, parts, missing: into_batches(missing, Source::text_len) }
    }
}

/// Splits numbered items into batches of about [`BATCH_BYTES`].
fn into_batches<T>(items: Vec<(usize, T)>, len: impl Fn(&T) -> usize) -> Vec<Vec<(usize, T)>> {
    let mut batches: Vec<Vec<(usize, T)>> = Vec::new();
    let mut room = 0;
    for (at, item) in items {
        let bytes = len(&item);
        if bytes > room || batches.is_empty() {
            batches.push(Vec::new());
            room = BATCH_BYTES.max(bytes);
        }
        room -= bytes;
        batches.last_mut().expect("a batch was pushed").push((at, item));
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::encoding::decode::{GZIP, ZSTD};
    use crate::exposition::Format;
    use crate::exposition::escape::Escaping;
    use crate::exposition::memory::Unlimited;
    use crate::reference::push_of;
    use crate::shard::key::GroupingKey;
    use crate::shard::push::Mode;
    use crate::shard::registry::Registry;
    use crate::shard::{Decision, Persistence, PushAttempt, Shard};
    use crate::telemetry::{OwnKind, OwnSample, OwnValue};

    fn shard() -> Shard {
        Shard::new(0, Arc::new(Registry::default()), Persistence::InMemory)
    }

    fn push(shard: &mut Shard, job: &str, body: &str) {
        let key = GroupingKey::new([("job".to_owned(), job.to_owned())]);
        let push = Arc::new(push_of(Mode::Replace, &key, body).expect("is readable"));
        let decision = Shard::decide(shard, &push, &mut PushAttempt::default(), 1.0);
        let Decision::Apply(edit) = decision else { panic!("nothing prevents the push") };
        edit.finish();
    }

    fn snapshot(families: usize) -> Vec<FamilySnapshot> {
        let mut shard = shard();
        let body: String = (0..families).map(|number| format!("m{number} 1\n")).collect();
        push(&mut shard, "a", &body);
        shard.snapshot()
    }

    fn finished<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let Some(result) = future.as_mut().now_or_never() {
                return result;
            }
            std::thread::yield_now();
        }
    }

    fn own(values: [f64; 3]) -> Vec<OwnFamily> {
        let names = ["a_own", "m_own", "z_own"];
        let family = |(name, value)| OwnFamily {
            name,
            help: "Own.",
            kind: OwnKind::Gauge,
            samples: vec![OwnSample { labels: Vec::new(), value: OwnValue::Single(value) }],
        };
        names.into_iter().zip(values).map(family).collect()
    }

    /// The gateway's own families are before, between and after those of the groups, and once the only ones.
    #[test]
    fn a_compressed_body_is_the_merged_text_of_its_moment() {
        let encoder = Encoder::new(Workers::start(1).expect("the thread starts"), PieceCache::default());
        let mut shards = [shard(), shard()];
        let mut own_values = [0.0; 3];
        type Change = dyn Fn(&mut [Shard; 2]);
        let changes: [&Change; 6] = [
            &|_| {},
            &|shards| push(&mut shards[0], "a", "x{y=\"1\"} 1\n"),
            &|shards| (0..3000).for_each(|job| push(&mut shards[1], &job.to_string(), "b 1\nn 2\n")),
            &|shards| push(&mut shards[1], "77", "b 3\nn 2\n"),
            &|shards| push(&mut shards[1], "78", "# HELP n Help.\nn 3\n"),
            &|shards| push(&mut shards[0], "a", "m 1\n"),
        ];
        for change in changes {
            change(&mut shards);
            // Twice: the second time, nothing has changed.
            for _ in 0..2 {
                for coding in [Coding::Gzip, Coding::Zstd] {
                    own_values = own_values.map(|value| value + 1.0);
                    let own = own(own_values);
                    let form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding };
                    let snapshots = || shards.iter().map(Shard::snapshot).collect::<Vec<_>>();
                    let wanted = text(merge(&snapshots(), &own));
                    let body = finished(encoder.compressed(snapshots(), own, form))
                        .expect("the worker lives")
                        .concat();
                    let decoder = if coding == Coding::Gzip { &GZIP } else { &ZSTD };
                    let body = decoder.decode(&body, usize::MAX, &mut Unlimited).expect("is valid");
                    assert!(body == wanted, "{}", String::from_utf8_lossy(&body));
                }
            }
            let form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };
            let body = encoder.cache.bodies.get(form, Instant::now()).expect("is kept");
            let input = body.input.as_ref().expect("can be compared");
            assert!(input.is(&shards.each_ref().map(Shard::snapshot), &own(own_values)));
        }
    }

    fn text(units: Vec<Unit>) -> Vec<u8> {
        let bytes = |segment: Arc<Segment>| Bytes::copy_from_slice(segment.text());
        units.into_iter().filter_map(|unit| plain(unit, bytes)).collect::<Vec<_>>().concat()
    }

    #[test]
    fn many_families_are_merged_on_a_worker() {
        let workers = Workers::start(1).expect("the thread starts");
        let encoder = Encoder::new(workers.clone(), PieceCache::default());
        let text_form =
            Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Identity };
        let protobuf_form = Form { format: Format::Protobuf, ..text_form };
        for (families, is_large) in [(10, false), (CORE_ITEMS_MAX + 1, true)] {
            let snapshot = snapshot(families);
            for form in [text_form, protobuf_form] {
                let mut units = Box::pin(encoder.units(vec![snapshot.clone()], Vec::new(), form));
                // The worker is busy until then, so that it cannot be done already.
                let (release, wait) = crossbeam_channel::bounded::<()>(1);
                let mut busy = Box::pin(workers.run(move |_| wait.recv()));
                assert!(busy.as_mut().now_or_never().is_none());
                let first = units.as_mut().now_or_never();
                release.send(()).expect("the worker waits");
                assert_eq!(first.is_none(), is_large || form == protobuf_form);
                let units = first.unwrap_or_else(|| finished(units)).expect("the worker does not fail");
                if form == text_form {
                    assert!(text(units) == text(merge(std::slice::from_ref(&snapshot), &[])));
                } else {
                    assert!(!units.is_empty());
                }
            }
        }
    }
}
