//! Translating: the snapshots of all cores become the units of an exposition in protobuf, or in text with escaped names.
//!
//! A piece is one segment in one form. It is translated once and cached with the segment ([`Source::cached`]), so a scrape translates
//! only the segments that changed since the last scrape of the same form. In protobuf the length of a family precedes it. So all
//! segments are translated first ([`Source::translate`], on any thread) and put in order afterwards ([`Plan::assemble`]).

use std::sync::Arc;

use crate::encoding::encode::{Coding, Form, Piece, PieceEncoder};
use crate::exposition::Format;
use crate::exposition::escape::{Escaping, NameKind, escape, escape_lines};
use crate::exposition::model::MetricType;
use crate::exposition::protobuf::{
    FamilyHeader, WireError, escape_metrics, metrics_of_lines, write_family_header,
};
use crate::exposition::render::write_header;
use crate::exposition::text::ParseError;
use crate::shard::FamilySnapshot;
use crate::shard::segments::Segment;
use crate::telemetry::OwnFamily;

use super::merge::{MergedFamily, SMALL_BYTES, Unit, Units, kind_of, merged_families, write_own};

/// Why a segment cannot be translated. Rendering never writes such lines, so this is a bug.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TranslateError {
    #[error(transparent)]
    NotUtf8(#[from] std::str::Utf8Error),
    #[error(transparent)]
    Lines(#[from] ParseError),
    #[error(transparent)]
    Protobuf(#[from] WireError),
}

/// The families to show, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    form: Form,
    families: Vec<Family>,
    /// The segments of all families.
    pub(crate) sources: Vec<Source>,
}

#[derive(Debug)]
struct Family {
    /// In the spelling of the requested form.
    name: String,
    kind: MetricType,
    help: Option<Arc<str>>,
    /// The gateway's own series in the requested form.
    own: Vec<u8>,
    /// How many of the plan's sources belong to the family.
    sources: usize,
}

/// How the segments of a family become pieces.
#[derive(Debug)]
struct Recipe {
    name: Arc<str>,
    kind: MetricType,
    form: Form,
}

/// A segment to translate.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    segment: Arc<Segment>,
    recipe: Arc<Recipe>,
}

/// A segment in the requested form.
#[derive(Debug)]
pub(crate) enum Part {
    /// Its stored text has that form already.
    Text(Arc<Segment>),
    /// A translated piece.
    Piece(Piece),
}

impl Source {
    /// The part, if it is cached or needs no translation.
    pub(crate) fn cached(&self) -> Option<Part> {
        let form = match self.recipe.form.escaping {
            Escaping::AllowUtf8 => self.recipe.form,
            _ => self.form(self.segment.known_quoted()?),
        };
        if form.is_stored_text() {
            Some(Part::Text(self.segment.clone()))
        } else {
            self.segment.piece(form).map(Part::Piece)
        }
    }

    /// Translates the segment and caches the piece with it.
    ///
    /// # Errors
    /// If the segment has lines that rendering never writes.
    pub(crate) fn translate(&self, encoder: &mut PieceEncoder) -> Result<Part, TranslateError> {
        let form = match self.recipe.form.escaping {
            Escaping::AllowUtf8 => self.recipe.form,
            _ => self.form(self.segment.is_quoted()),
        };
        if form.is_stored_text() {
            return Ok(Part::Text(self.segment.clone()));
        }
        let mut plain = self.plain(form)?;
        plain.shrink_to_fit();
        // Small pieces are copied together before they are compressed.
        let coding = if plain.len() < SMALL_BYTES { Coding::Identity } else { form.coding };
        let piece = encoder.encode(coding, plain.into());
        self.segment.cache_piece(form, piece.clone());
        Ok(Part::Piece(piece))
    }

    /// Bytes of text to translate.
    pub(crate) fn text_len(&self) -> usize {
        self.segment.text().len()
    }

    /// The form of this segment: without quoted names, nothing is escaped.
    fn form(&self, is_quoted: bool) -> Form {
        let Recipe { name, form, .. } = &*self.recipe;
        // In protobuf the family's name is outside the segment.
        let is_quoted = is_quoted || (form.format == Format::Text && !NameKind::Metric.is_plain(name));
        if is_quoted { *form } else { Form { escaping: Escaping::AllowUtf8, ..*form } }
    }

    fn plain(&self, form: Form) -> Result<Vec<u8>, TranslateError> {
        let Recipe { name, kind, .. } = &*self.recipe;
        let mut plain = Vec::with_capacity(self.text_len());
        match form.format {
            Format::Text => {
                let lines = str::from_utf8(self.segment.text())?;
                escape_lines(&mut plain, lines, name, form.escaping);
            }
            Format::Protobuf => {
                self.segment.write_metrics(&mut plain, name, *kind)?;
                if form.escaping != Escaping::AllowUtf8 {
                    let metrics = std::mem::take(&mut plain);
                    escape_metrics(&mut plain, &metrics, form.escaping)?;
                }
            }
        }
        Ok(plain)
    }
}

/// Plans the families to show in a form. Costs a pointer per segment.
pub(crate) fn plan(cores: &[Vec<FamilySnapshot>], own: &[OwnFamily], form: Form) -> Plan {
    let mut plan = Plan { form, families: Vec::new(), sources: Vec::new() };
    for MergedFamily { name, own, snapshots } in merged_families(cores, own) {
        let own_kind = own.map(|own| kind_of(own.kind));
        let Some(kind) = own_kind.or(snapshots.first().map(|snapshot| snapshot.kind)) else { continue };
        let help = match own {
            Some(own) => Some(own.help.into()),
            None => snapshots.first().and_then(|snapshot| snapshot.shared.help()),
        };
        let recipe = Arc::new(Recipe { name: name.into(), kind, form });
        let first = plan.sources.len();
        for snapshot in snapshots {
            let segments = snapshot.text.segments().cloned();
            plan.sources.extend(segments.map(|segment| Source { segment, recipe: recipe.clone() }));
        }
        let name = escape(name, form.escaping, NameKind::Metric).into_owned();
        let sources = plan.sources.len() - first;
        plan.families.push(Family { name, kind, help, own: own_series(own, form.format), sources });
    }
    plan
}

/// The gateway's own series. None of their names needs quotes or escaping.
fn own_series(own: Option<&OwnFamily>, format: Format) -> Vec<u8> {
    let mut lines = Vec::new();
    let Some(own) = own else { return lines };
    write_own(&mut lines, own);
    match format {
        Format::Text => lines,
        Format::Protobuf => {
            let mut metrics = Vec::with_capacity(lines.len());
            let read = metrics_of_lines(&mut metrics, own.name, kind_of(own.kind), &lines);
            debug_assert_eq!(read, Ok(()), "the gateway writes valid lines");
            metrics
        }
    }
}

impl Plan {
    /// Puts the parts of all sources, given in order, after the headers of their families.
    pub(crate) fn assemble(self, parts: Vec<Part>) -> Vec<Unit> {
        let mut units = Units::default();
        let mut parts = parts.into_iter();
        for family in self.families {
            let parts: Vec<Part> = parts.by_ref().take(family.sources).collect();
            let Family { name, kind, help, own, .. } = &family;
            match self.form.format {
                Format::Text => write_header(units.small(), name, *kind, help.as_deref()),
                Format::Protobuf => {
                    let metrics_bytes = own.len() + parts.iter().map(Part::plain_len).sum::<usize>();
                    let header = FamilyHeader { name, help: help.as_deref(), kind: *kind, unit: None };
                    write_family_header(units.small(), header, metrics_bytes);
                }
            }
            units.small().extend_from_slice(own);
            for part in parts {
                match part {
                    Part::Text(segment) => units.add(&segment),
                    Part::Piece(piece) => units.add_piece(piece),
                }
            }
        }
        units.finish()
    }
}

impl Part {
    fn plain_len(&self) -> usize {
        match self {
            Self::Text(segment) => segment.text().len(),
            Self::Piece(piece) => piece.plain_len(),
        }
    }
}
