//! Content codings: decodes request bodies, encodes scrape responses. Does no IO and keeps no state between requests.

pub mod decode;
pub mod encode;
pub mod gzip;
