//! The parser of push bodies in the text format 0.0.4.
//!
//! It accepts and rejects what the official Pushgateway does, including its oddities, because clients rely on them: every
//! line ends with a lone LF, also the last one; nothing may follow a value or a type. An error has the official line number
//! and, where one exists, the official wording.
//!
//! It deliberately differs in two places. HELP text that is not UTF-8 is repaired, because passing it on would break the
//! scrape. A sample without a name is rejected, where the official program uses the name from the previous line, or
//! crashes.
//!
//! * [`cursor`] reads tokens and creates errors. It deals with bytes, not with metrics.
//! * [`parser`] is the grammar of a line.
//! * [`builder`] assembles samples into families, histograms and summaries.
//! * [`runs`] groups table entries by owner.
//!
//! Bodies are parsed as a whole, because the families borrow from the body. OpenMetrics is not supported.

mod builder;
mod cursor;
mod error;
mod parser;
mod runs;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use error::ParseError;

use super::lengths::LengthLimits;
use super::memory::{Memory, Unlimited};
use super::model::Families;
use super::names::NameRules;

/// Parses a whole body without limits on names and texts, such as lines that the gateway wrote itself.
///
/// # Errors
/// The first line that breaks the rules, or a body of 4 GiB or more.
pub fn parse(body: &[u8], rules: NameRules) -> Result<Families<'_>, ParseError> {
    parse_with(body, rules, LengthLimits::NONE, &mut Unlimited)
}

/// Parses a whole body that a client sent, and reserves what its families need from `memory` while it parses. A body of short lines
/// needs many times its size.
///
/// # Errors
/// Those of [`parse`], a name or text beyond [`LengthLimits::PUSH`], or the families do not fit into the memory.
pub fn parse_within<'a>(
    body: &'a [u8],
    rules: NameRules,
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ParseError> {
    parse_with(body, rules, LengthLimits::PUSH, memory)
}

fn parse_with<'a>(
    body: &'a [u8],
    rules: NameRules,
    lengths: LengthLimits,
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ParseError> {
    // Spans are 32 bits wide, and no table has more entries than the body has bytes.
    if u32::try_from(body.len()).is_err() {
        return Err(ParseError::new(1, "body of 4 GiB or more".to_owned()));
    }
    parser::Parser::new(body, rules, lengths, memory).run()
}
