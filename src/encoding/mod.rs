//! Content codings: decodes request bodies and encodes scrape responses. Does no IO and keeps no state between requests.
//!
//! * [`decode`] lists the encodings of request bodies. A new one is a row there, and a file if its decoder needs one.
//! * [`encode`] defines the forms of an exposition, and encodes it piece by piece.
//! * [`gzip`] joins compressed pieces to one gzip member.
//! * [`lines`] compresses lines that resemble each other.

pub mod decode;
pub mod encode;
pub mod gzip;
pub mod lines;
