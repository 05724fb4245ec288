//! The crate http, with every byte that a path of HTTP/2 may contain.
//!
//! h2 reads `:path` with [`uri::PathAndQuery::from_maybe_shared`]. The version in the crate http cuts the path off at a `#`, so that a push
//! to `/metrics/job/C#tests` would end up in the group of job `C`, and rejects spaces, `<`, `>` and backticks. The official program accepts
//! all of these. `[patch.crates-io]` in Cargo.toml puts this crate in the place of http. It re-exports http unchanged, except that it
//! percent-encodes these bytes of a path. For HTTP/1.1, the server does the same in `targets.rs`.

pub use original::*;

/// See the module of the same name in the crate http.
pub mod uri {
    use std::borrow::Cow;

    use bytes::Bytes;
    pub use original::uri::*;

    /// Has only the function that h2 calls. Any other use, such as that of the type itself, does not compile, so it is noticed.
    pub enum PathAndQuery {}

    impl PathAndQuery {
        /// Reads the path and query of a request as it was sent.
        ///
        /// # Errors
        /// If it is neither `*` nor begins with `/`, has control characters, or is longer than 64 KiB.
        pub fn from_maybe_shared<T: AsRef<[u8]> + 'static>(
            path: T,
        ) -> Result<original::uri::PathAndQuery, InvalidUri> {
            let bytes = path.as_ref();
            if bytes != b"*" && !bytes.starts_with(b"/") {
                // Of the forms that http accepts, `?` without a path and a mere fragment are malformed: RFC 9113, section 8.3.1. The
                // text is one that http rejects.
                return original::uri::PathAndQuery::try_from("-");
            }
            match escaped(bytes) {
                Cow::Borrowed(_) => original::uri::PathAndQuery::from_maybe_shared(path),
                Cow::Owned(escaped) => original::uri::PathAndQuery::from_maybe_shared(Bytes::from(escaped)),
            }
        }
    }

    /// Percent-encodes the printable bytes that http does not take as part of a path or query.
    fn escaped(bytes: &[u8]) -> Cow<'_, [u8]> {
        let is_special = |byte: &u8| b" #\"<>`".contains(byte);
        if !bytes.iter().any(is_special) {
            return Cow::Borrowed(bytes);
        }
        let mut escaped = Vec::with_capacity(bytes.len() + 16);
        for byte in bytes {
            if is_special(byte) {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
                escaped.extend([b'%', digit(byte >> 4), digit(*byte)]);
            } else {
                escaped.push(*byte);
            }
        }
        Cow::Owned(escaped)
    }

    #[cfg(test)]
    mod tests {
        use super::{Bytes, PathAndQuery};

        fn read(path: &str) -> Result<String, String> {
            let read = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes()));
            read.map(|path| path.as_str().to_owned()).map_err(|error| error.to_string())
        }

        #[test]
        fn special_bytes_are_escaped() {
            for (sent, expected) in [
                ("/metrics/job/a", "/metrics/job/a"),
                ("/metrics/job/C#tests", "/metrics/job/C%23tests"),
                ("/a b\"<c>`?d=#e", "/a%20b%22%3Cc%3E%60?d=%23e"),
                ("/%23/\u{e9}#", "/%23/\u{e9}%23"),
                ("*", "*"),
            ] {
                assert_eq!(read(sent).as_deref(), Ok(expected));
            }
        }

        #[test]
        fn every_printable_character_is_accepted() {
            for character in ' '..='~' {
                let path = read(&format!("/a{character}b?{character}")).expect("printable");
                assert!(path.starts_with("/a") && !path.contains('#'), "{path}");
            }
        }

        #[test]
        fn paths_that_begin_otherwise_and_control_characters_are_rejected() {
            for path in ["", "#", "#/", "?a", "a/b", "https://a/b", " /", "/\t", "/\n", "/\0", "/\x7f", "**"]
            {
                assert!(read(path).is_err(), "{path:?}");
            }
        }
    }
}
