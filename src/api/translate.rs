//! Scrapes in other forms than the stored text: what all cores handed over → pieces of such a form → the units of one answer.
//!
//! A piece is one segment in one form. It is made once and kept with the segment ([`Source::known`]), so a scrape makes only
//! what changed since the last one of the same form. In protobuf the length of a family stands in front of it: hence first
//! all pieces ([`Source::make`], on any thread), then their order ([`assemble`]).

use std::sync::Arc;

use crate::exposition::form::{Coding, Form, Packer, Piece};
use crate::exposition::model::MetricType;
use crate::exposition::protobuf::{Head, metrics_of_lines, write_family_head};
use crate::exposition::text::ParseError;
use crate::shard::Handed;
use crate::shard::segments::Segment;
use crate::telemetry::metrics::OwnFamily;

use super::scrape::{MergedFamily, SMALL_BYTES, Unit, Units, kind_of, merged_families, write_own};

/// What has to be shown, in its order.
#[derive(Debug)]
pub struct Plan {
    families: Vec<Family>,
    /// Of all families.
    pub sources: Vec<Source>,
}

#[derive(Debug)]
struct Family {
    recipe: Arc<Recipe>,
    help: Option<Arc<str>>,
    /// The gateway's own series, in the form asked for.
    own: Vec<u8>,
    /// How many sources follow.
    sources: usize,
}

/// How the segments of a family become pieces.
#[derive(Debug)]
struct Recipe {
    name: Arc<str>,
    kind: MetricType,
    form: Form,
}

/// A segment to be shown in another form.
#[derive(Debug)]
pub struct Source {
    segment: Arc<Segment>,
    recipe: Arc<Recipe>,
}

impl Source {
    /// The piece, if it was made before.
    pub fn known(&self) -> Option<Piece> {
        self.segment.piece(self.recipe.form)
    }

    /// Makes the piece and keeps it with the segment.
    ///
    /// # Errors
    /// If the segment has lines which rendering does not write.
    pub fn make(&self, packer: &mut Packer) -> Result<Piece, ParseError> {
        let Recipe { name, kind, form } = &*self.recipe;
        let mut plain = Vec::with_capacity(self.text_len());
        self.segment.write_metrics(&mut plain, name, *kind)?;
        plain.shrink_to_fit();
        // Small ones are copied together before they are compressed.
        let coding = if plain.len() < SMALL_BYTES { Coding::Identity } else { form.coding };
        let piece = packer.pack(coding, plain.into());
        self.segment.keep_piece(*form, piece.clone());
        Ok(piece)
    }

    /// Bytes of text to be read.
    pub fn text_len(&self) -> usize {
        self.segment.text().len()
    }
}

/// Finds what has to be shown in a form. Costs a pointer per segment.
pub fn plan(cores: &[Vec<Handed>], own: &[OwnFamily], form: Form) -> Plan {
    let mut plan = Plan { families: Vec::new(), sources: Vec::new() };
    for MergedFamily { name, own, handed } in merged_families(cores, own) {
        let own_kind = own.map(|own| kind_of(own.kind));
        let Some(kind) = own_kind.or(handed.first().map(|handed| handed.kind)) else { continue };
        let help = match own {
            Some(own) => Some(own.help.into()),
            None => handed.first().and_then(|handed| handed.shared.help()),
        };
        let recipe = Arc::new(Recipe { name: name.into(), kind, form });
        let first = plan.sources.len();
        for handed in handed {
            let segments = handed.text.segments().cloned();
            plan.sources.extend(segments.map(|segment| Source { segment, recipe: recipe.clone() }));
        }
        let sources = plan.sources.len() - first;
        plan.families.push(Family { own: own_metrics(own), recipe, help, sources });
    }
    plan
}

/// The gateway's own series as protobuf.
fn own_metrics(own: Option<&OwnFamily>) -> Vec<u8> {
    let (mut lines, mut metrics) = (Vec::new(), Vec::new());
    if let Some(own) = own {
        write_own(&mut lines, own);
        let read = metrics_of_lines(&mut metrics, own.name, kind_of(own.kind), &lines);
        debug_assert_eq!(read, Ok(()), "the gateway writes valid lines");
    }
    metrics
}

impl Plan {
    /// Puts the pieces of all sources, given in their order, behind the heads of their families.
    pub fn assemble(self, pieces: Vec<Piece>) -> Vec<Unit> {
        let mut units = Units::default();
        let mut pieces = pieces.into_iter();
        for family in self.families {
            let pieces: Vec<Piece> = pieces.by_ref().take(family.sources).collect();
            let metrics_bytes = family.own.len() + pieces.iter().map(Piece::plain_len).sum::<usize>();
            let Recipe { name, kind, .. } = &*family.recipe;
            let head = Head { name, help: family.help.as_deref(), kind: *kind, unit: None };
            write_family_head(units.small(), head, metrics_bytes);
            units.small().extend_from_slice(&family.own);
            pieces.into_iter().for_each(|piece| units.add_piece(piece));
        }
        units.finish()
    }
}
