//! The external URL and the paths that follow from it.
//!
//! The gateway needs only the decoded path of the URL.

use percent_encoding::percent_decode_str;

/// Why a text is not a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text contains a control character.
    #[error("the URL contains a control character")]
    ControlCharacter,
    /// A `%` is not followed by two hexadecimal digits, or the decoded path is not UTF-8.
    #[error("the URL contains an invalid percent-encoding")]
    Escape,
    /// The text has no scheme, as in `127.0.0.1:9091/prefix`.
    #[error("missing scheme; use http://host:9091/prefix")]
    SchemeMissing,
}

/// Returns the decoded path of a URL or of a bare path; empty if there is none.
pub(super) fn path_of(url: &str) -> Result<String, UrlError> {
    if url.chars().any(char::is_control) {
        return Err(UrlError::ControlCharacter);
    }
    let url = url.split('#').next().unwrap_or_default();
    let url = url.split('?').next().unwrap_or_default();
    let path = match split_scheme(url)? {
        (true, rest) if !rest.starts_with('/') => "", // opaque, as in `mailto:x`
        (_, rest) => match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
            None => rest,
        },
    };
    decode(path)
}

/// Returns whether the URL has a scheme, and the part after it.
fn split_scheme(url: &str) -> Result<(bool, &str), UrlError> {
    let first_segment = url.split('/').next().unwrap_or_default();
    let Some((scheme, _)) = first_segment.split_once(':') else {
        return Ok((false, url));
    };
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if valid { Ok((true, &url[scheme.len() + 1..])) } else { Err(UrlError::SchemeMissing) }
}

fn decode(path: &str) -> Result<String, UrlError> {
    let escapes_are_valid = path
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !escapes_are_valid {
        return Err(UrlError::Escape);
    }
    percent_decode_str(path).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| UrlError::Escape)
}

/// Returns the prefix of all routes: empty, or with a leading slash and without a trailing one.
pub(super) fn normal_prefix(prefix: &str) -> String {
    match clean(prefix) {
        path if path == "/" => String::new(),
        path => path,
    }
}

/// Returns the shortest absolute form of a path: single slashes, no `.` or `..`, no trailing slash. The path of a request is
/// cleaned before it is routed, so only clean paths can be reached.
pub(super) fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_path_of_a_url() {
        for (url, path) in [
            ("", ""),
            ("http://x", ""),
            ("http://x/", "/"),
            ("http://x:9091/a/b/", "/a/b/"),
            ("http://x/a%20b/?q#f", "/a b/"),
            ("http://x?q=/a", ""),
            ("//x/a", "/a"),
            ("/foo/", "/foo/"),
            ("foo", "foo"),
            ("mailto:foo", ""),
            ("localhost:9091/foo", ""),
        ] {
            assert_eq!(path_of(url).as_deref(), Ok(path), "{url}");
        }
        assert_eq!(path_of("%zz"), Err(UrlError::Escape));
        assert_eq!(path_of("http://x/%f"), Err(UrlError::Escape));
        assert_eq!(path_of("http://x/%ff"), Err(UrlError::Escape));
        assert_eq!(path_of("http://x/\n"), Err(UrlError::ControlCharacter));
        assert_eq!(path_of("127.0.0.1:9091/a"), Err(UrlError::SchemeMissing));
    }

    #[test]
    fn prefixes_have_a_leading_and_no_trailing_slash() {
        for (value, prefix) in [
            ("", ""),
            ("/", ""),
            ("b/", "/b"),
            ("/b", "/b"),
            ("//c//d//", "/c/d"),
            ("../x", "/x"),
            ("/a/./b", "/a/b"),
        ] {
            assert_eq!(normal_prefix(value), prefix, "{value}");
        }
    }
}
