//! The parser of push bodies in the text format 0.0.4.
//!
//! It accepts and refuses what the official Pushgateway does, oddities included, because clients rely on them: lines
//! end with a lone LF, the last one too; nothing may stand behind a value or a type. Where a body is refused, the error
//! has the official line number and, wherever there is one, the official wording.
//!
//! It differs on purpose in two places. HELP that is not UTF-8 is repaired, since passed on it would break the scrape.
//! A sample without any name is refused, where the official program takes the name of the line before, or crashes.
//!
//! * [`cursor`] reads tokens and makes errors; it knows bytes, not metrics.
//! * [`parser`] is the grammar of a line.
//! * [`builder`] puts samples into families, histograms and summaries.
//! * [`runs`] holds what the builder needs to find and to order things.
//!
//! Not for OpenMetrics, and not for bodies that come in pieces: a body is parsed whole, since its families borrow from it.

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

use super::model::Families;
use super::names::NameRules;

/// Parses a body. On an error nothing of the body counts.
pub fn parse(body: &[u8], rules: NameRules) -> Result<Families<'_>, ParseError> {
    // Spans count in 32 bits, and there is never more than one thing to count per byte.
    if u32::try_from(body.len()).is_err() {
        return Err(ParseError::new(1, "body of 4 GiB or more".to_owned()));
    }
    parser::Parser::new(body, rules).run()
}
