//! From a path and a method to an endpoint.
//!
//! Behaves like the router of the official program: one table per method, a redirect to the clean path or the right case if that would
//! match, a response to OPTIONS, and 405 with all allowed methods. The API has a table of its own.
//!
//! The official program has two routers behind each other, and so has this one. The first sees the path before it is decoded, and redirects
//! to the clean path. The second sees the decoded path, in which an encoded slash separates and encoded dots are values.

use std::borrow::Cow;
use std::fmt::Write;

use http::Method;

use super::endpoints::Endpoint;

/// A path of an endpoint: a literal head and what may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// Decoded, without the route prefix.
    pub head: &'static str,
    pub tail: Tail,
}

/// What may follow the head of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    End,
    /// Anything, or nothing.
    Anything,
    /// A job, and further labels. An empty job redirects to the path without its last slash.
    Job,
    /// A job in base64, and further labels. An empty job must be followed by a slash.
    JobBase64,
}

/// The decision of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed<'p> {
    /// The path and the method lead to an endpoint.
    Found {
        /// The endpoint.
        endpoint: Endpoint,
        /// The head of the path that matched, without the route prefix.
        path_head: &'static str,
        /// The decoded rest of the path, which may be any bytes.
        path_tail: Cow<'p, [u8]>,
    },
    /// The client should use this path instead, which is percent-encoded. The redirect is temporary where the method must be preserved.
    Redirect(String),
    /// The path exists for these methods only; sorted, with OPTIONS.
    NotAllowed(String),
    /// OPTIONS on a path with these methods.
    Options(String),
    /// The path does not exist.
    NotFound,
}

/// The routes of a gateway with its prefix and options.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Route>,
    api_prefix: String,
}

#[derive(Debug)]
struct Route {
    endpoint: Endpoint,
    path: Path,
    /// The literal start of the path, decoded, with the route prefix.
    start: String,
}

impl Path {
    pub(crate) const fn exact(head: &'static str) -> Self {
        Self { head, tail: Tail::End }
    }
}

impl Router {
    /// The routes below `prefix`, which is empty or starts with a slash and does not end with one. `telemetry_path` includes the prefix.
    pub fn new(prefix: &str, telemetry_path: &str, with_admin_api: bool) -> Self {
        let mut routes = Vec::new();
        for endpoint in Endpoint::ALL.iter().copied() {
            if endpoint.is_of_admin_api() && !with_admin_api {
                continue;
            }
            for path in endpoint.paths().iter().copied() {
                let start = match endpoint {
                    Endpoint::Metrics => telemetry_path.to_owned(),
                    _ => format!("{prefix}{}", path.head),
                };
                routes.push(Route { endpoint, path, start });
            }
        }
        Self { routes, api_prefix: format!("{prefix}/api/") }
    }

    /// Whether a path belongs to the API, whose request bodies are not decoded.
    pub(crate) fn is_api(&self, raw_path: &str) -> bool {
        raw_path.starts_with(&self.api_prefix)
    }

    /// Routes a request. `raw_path` is the path as sent.
    ///
    /// Returns `None` if the path is not valid percent-encoding.
    pub fn route<'p>(&self, method: &Method, raw_path: &'p str) -> Option<Routed<'p>> {
        let path = decode(raw_path)?;
        let escaped = if is_escaped(raw_path) { Cow::Borrowed(raw_path) } else { Cow::Owned(escape(&path)) };
        if method != Method::CONNECT {
            let clean = clean(&escaped);
            if clean
                .strip_suffix(API)
                .is_some_and(|prefix| self.api_prefix.strip_suffix("/api/") == Some(prefix))
            {
                return Some(Routed::Redirect(format!("{clean}/")));
            }
            if clean != escaped {
                return Some(Routed::Redirect(clean.into_owned()));
            }
        }
        let table = Table { routes: &self.routes, is_api: self.is_api_v1(raw_path) };
        Some(table.route(method, path))
    }

    /// Whether a path is routed by the table of the API.
    fn is_api_v1(&self, raw_path: &str) -> bool {
        raw_path.strip_prefix(&self.api_prefix).is_some_and(|rest| rest.starts_with("v1/"))
    }
}

/// The path of the API without its last slash and the route prefix.
const API: &str = "/api/v1";

/// The routes of the API, or all others.
struct Table<'r> {
    routes: &'r [Route],
    is_api: bool,
}

impl<'r> Table<'r> {
    fn routes(&self) -> impl Iterator<Item = &'r Route> {
        let is_api = self.is_api;
        self.routes.iter().filter(move |route| route.path.head.starts_with(API) == is_api)
    }

    fn routes_of(&self, method: &str) -> impl Iterator<Item = &'r Route> {
        self.routes().filter(move |route| route.allows(method))
    }

    fn route<'p>(&self, method: &Method, path: Cow<'p, [u8]>) -> Routed<'p> {
        let name = method.as_str();
        if let Some(route) = self.routes_of(name).find(|route| route.matches(&path)) {
            let path_tail = match path {
                Cow::Borrowed(path) => Cow::Borrowed(&path[route.start.len()..]),
                Cow::Owned(path) => Cow::Owned(path[route.start.len()..].to_owned()),
            };
            return Routed::Found { endpoint: route.endpoint, path_head: route.path.head, path_tail };
        }
        if method != Method::CONNECT
            && *path != *b"/"
            && let Some(other) = self.other_spelling(name, &path)
        {
            return Routed::Redirect(escape(&other));
        }
        let allowed = self.allowed(&path);
        if allowed.is_empty() {
            Routed::NotFound
        } else if method == Method::OPTIONS {
            Routed::Options(allowed)
        } else {
            Routed::NotAllowed(allowed)
        }
    }

    /// The same path with or without its last slash, or clean and in the right case.
    fn other_spelling(&self, method: &str, path: &[u8]) -> Option<Vec<u8>> {
        let other_slash = with_other_slash(path);
        if self.routes_of(method).any(|route| route.gains_or_loses_slash(&other_slash)) {
            return Some(other_slash);
        }
        let clean = clean_decoded(path);
        let correct = |path: &[u8], matches: fn(&Route, &[u8]) -> bool| {
            self.routes_of(method).find_map(|route| {
                let start = path.get(..route.start.len())?;
                let corrected = [route.start.as_bytes(), &path[start.len()..]].concat();
                (start.eq_ignore_ascii_case(route.start.as_bytes()) && matches(route, &corrected))
                    .then_some(corrected)
            })
        };
        correct(&clean, Route::matches)
            .or_else(|| correct(&with_other_slash(&clean), Route::gains_or_loses_slash))
            .filter(|corrected| corrected != path)
    }

    /// The methods of a path, separated by commas; empty if the path does not exist.
    fn allowed(&self, path: &[u8]) -> String {
        let mut methods: Vec<&str> = self
            .routes()
            .filter(|route| route.endpoint != Endpoint::ApiOptions && route.matches(path))
            .flat_map(|route| route.endpoint.methods())
            .copied()
            .collect();
        if methods.is_empty() {
            return String::new();
        }
        methods.push("OPTIONS");
        methods.sort_unstable();
        methods.dedup();
        methods.join(", ")
    }
}

impl Route {
    fn allows(&self, method: &str) -> bool {
        self.endpoint.methods().contains(&method)
    }

    fn matches(&self, path: &[u8]) -> bool {
        path.strip_prefix(self.start.as_bytes()).is_some_and(|rest| match self.path.tail {
            Tail::End => rest.is_empty(),
            Tail::Anything => true,
            Tail::Job | Tail::JobBase64 => !rest.is_empty(),
        })
    }

    /// Whether a path leads to this route after its last slash has been added or removed.
    fn gains_or_loses_slash(&self, path: &[u8]) -> bool {
        match self.path.tail {
            Tail::End | Tail::Anything => self.matches(path),
            // A slash at the end of a job belongs to the job.
            Tail::Job => path == self.start.trim_end_matches('/').as_bytes(),
            Tail::JobBase64 => false,
        }
    }
}

/// Resolves empty, `.` and `..` segments of a path that is not decoded. A slash at the end remains; `.` and `..` at the end add none, because
/// that would be another grouping key.
fn clean(path: &str) -> Cow<'_, str> {
    if is_clean(path) { Cow::Borrowed(path) } else { Cow::Owned(without_dots(path)) }
}

fn without_dots(path: &str) -> String {
    let segments = resolved(path.as_bytes().split(|&byte| byte == b'/'));
    // Split at ASCII characters, so the segments are UTF-8.
    let segments: Vec<_> = segments.into_iter().map(String::from_utf8_lossy).collect();
    let slash = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

/// Whether a path has nothing to resolve, which is true for nearly all paths.
fn is_clean(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|path| {
        let mut segments = path.split('/');
        let last = segments.next_back();
        !matches!(last, Some("." | "..")) && segments.all(|segment| !matches!(segment, "" | "." | ".."))
    })
}

/// The same for a decoded path. Here, a `.` at the end counts as a slash.
fn clean_decoded(path: &[u8]) -> Vec<u8> {
    let segments = resolved(path.split(|&byte| byte == b'/'));
    let slash: &[u8] =
        if (path.ends_with(b"/") || path.ends_with(b"/.")) && !segments.is_empty() { b"/" } else { b"" };
    [b"/", &*segments.join(&b'/'), slash].concat()
}

fn resolved<'a>(segments: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut resolved = Vec::new();
    for segment in segments {
        match segment {
            b"" | b"." => {}
            b".." => {
                resolved.pop();
            }
            other => resolved.push(other),
        }
    }
    resolved
}

fn with_other_slash(path: &[u8]) -> Vec<u8> {
    match path.strip_suffix(b"/") {
        Some(without) => without.to_owned(),
        None => [path, b"/"].concat(),
    }
}

/// Percent-decodes a path, or returns `None` if an escape is invalid.
fn decode(raw: &str) -> Option<Cow<'_, [u8]>> {
    has_valid_escapes(raw).then(|| percent_encoding::percent_decode_str(raw).into())
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_valid_escapes(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

/// Whether Go uses the path as it was sent. Otherwise, Go escapes the decoded path again, and `%2F` becomes a slash.
fn is_escaped(raw: &str) -> bool {
    raw.bytes().all(|byte| {
        needs_no_escape(byte) || matches!(byte, b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' | b'%')
    })
}

/// Percent-encodes a path as Go does.
fn escape(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for &byte in path {
        if needs_no_escape(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string grows as needed");
        }
    }
    out
}

fn needs_no_escape(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Program;
    use crate::storage::engines::CHOICES;

    fn router() -> Router {
        Router::new("", "/metrics", true)
    }

    fn redirect(method: &Method, path: &str) -> String {
        match router().route(method, path) {
            Some(Routed::Redirect(to)) => to,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn unclean_paths_are_redirected_to_the_clean_path() {
        let put = Method::PUT;
        assert_eq!(redirect(&put, "/metrics/job/a//b"), "/metrics/job/a/b");
        assert_eq!(redirect(&put, "/metrics/job/a/../b"), "/metrics/job/b");
        assert_eq!(redirect(&put, "/metrics/JOB/a"), "/metrics/job/a");
        assert_eq!(redirect(&put, "/metrics/job/"), "/metrics/job");
        assert_eq!(redirect(&Method::GET, "/metrics/"), "/metrics");
        assert_eq!(redirect(&Method::GET, "/static"), "/static/");
        assert_eq!(redirect(&Method::GET, "/-/Healthy"), "/-/healthy");
    }

    proptest! {
        #[test]
        fn a_path_is_clean_if_nothing_is_resolved(path in "/?((|a|\\.|\\.\\.|\\.a)/){0,4}(|a|\\.|\\.\\.)") {
            prop_assert_eq!(is_clean(&path), without_dots(&path) == path);
        }
    }

    /// With a slash at the end, the path would name another group, or none.
    #[test]
    fn dots_at_the_end_of_a_path_add_no_slash() {
        let put = Method::PUT;
        assert_eq!(redirect(&put, "/metrics/job/a/dir/."), "/metrics/job/a/dir");
        assert_eq!(redirect(&put, "/metrics/job/a/x/y/z/.."), "/metrics/job/a/x/y");
        assert_eq!(redirect(&put, "/metrics/job/a/dir/./"), "/metrics/job/a/dir/");
    }

    #[test]
    fn one_redirect_corrects_the_case_and_encoded_slashes() {
        let put = Method::PUT;
        assert_eq!(redirect(&put, "/Metrics/job/a/x/%2F/y/1"), "/metrics/job/a/x/y/1");
        assert_eq!(redirect(&Method::GET, "/%2Fmetrics"), "/metrics");
        assert_eq!(redirect(&Method::GET, "/STATUS/"), "/status");
        assert_eq!(redirect(&put, "/Metrics/job/a/x/%ff"), "/metrics/job/a/x/%FF", "any bytes");
    }

    /// Go escapes such a path again after decoding it.
    #[test]
    fn an_encoded_slash_beside_a_raw_character_that_must_be_escaped_is_cleaned() {
        let put = Method::PUT;
        assert_eq!(redirect(&put, "/metrics/job/a|b/x/%2F"), "/metrics/job/a%7Cb/x/");
        assert_eq!(redirect(&put, "/metrics/job/\u{e9}/%2F/x"), "/metrics/job/%C3%A9/x");
        assert!(matches!(router().route(&put, "/metrics/job/a|b/x/y"), Some(Routed::Found { .. })));
    }

    #[test]
    fn the_api_has_a_table_of_its_own() {
        let route = |method, path| router().route(&method, path);
        assert_eq!(redirect(&Method::GET, "/api/v1"), "/api/v1/");
        assert_eq!(route(Method::GET, "/API/v1/status"), Some(Routed::NotFound));
        assert_eq!(route(Method::OPTIONS, "/API/v1/status"), Some(Routed::NotFound));
        assert_eq!(route(Method::GET, "/%61pi/v1/status"), Some(Routed::NotFound));
        assert_eq!(redirect(&Method::GET, "/api/v1/Status"), "/api/v1/status");
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for (method, path) in [
            (Method::PUT, "/metrics/job"),
            (Method::PUT, "/metrics/job@base64/"),
            (Method::PUT, "/metrics/jobs/a"),
            (Method::GET, "/-/"),
            (Method::GET, "/-"),
            (Method::GET, "/nothing"),
            (Method::GET, "/api/v1/nothing"),
            (Method::OPTIONS, "/x"),
        ] {
            assert_eq!(router().route(&method, path), Some(Routed::NotFound), "{method} {path}");
        }
        assert_eq!(router().route(&Method::PUT, "/metrics/job/%G0"), None);
    }

    #[test]
    fn a_wrong_method_gets_the_allowed_methods() {
        let not_allowed = |methods: &str| Some(Routed::NotAllowed(methods.to_owned()));
        assert_eq!(router().route(&Method::GET, "/metrics/job/a"), not_allowed("DELETE, OPTIONS, POST, PUT"));
        assert_eq!(router().route(&Method::HEAD, "/metrics"), not_allowed("GET, OPTIONS"));
        assert_eq!(router().route(&Method::POST, "/api/v1/admin/wipe"), not_allowed("OPTIONS, PUT"));
        assert_eq!(
            router().route(&Method::OPTIONS, "/metrics"),
            Some(Routed::Options("GET, OPTIONS".to_owned()))
        );
    }

    #[test]
    fn an_encoded_slash_separates_and_encoded_dots_do_not() {
        let found = |path| match router().route(&Method::PUT, path) {
            Some(Routed::Found { endpoint: Endpoint::Push, path_head: "/metrics/job/", path_tail }) => {
                path_tail.into_owned()
            }
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(found("/metrics/job/%2F"), b"/");
        assert_eq!(found("/metrics/job/a/zone/%2e%2e"), b"a/zone/..");
        assert_eq!(found("/metrics/%6Aob/a"), b"a");
        assert_eq!(found("/metrics/job/%ff"), b"\xff");
    }

    #[test]
    fn the_configuration_reserves_the_path_of_every_endpoint() {
        let others = Endpoint::ALL.iter().filter(|endpoint| **endpoint != Endpoint::Metrics);
        for endpoint in others.filter(|endpoint| endpoint.methods().contains(&"GET")) {
            for Path { head, tail } in endpoint.paths() {
                let path = if *tail == Tail::End { (*head).to_owned() } else { format!("{head}x") };
                let arguments = ["sluicegate".to_owned(), format!("--web.telemetry-path={path}")];
                assert!(Program::from_arguments(arguments, &CHOICES).is_err(), "{path}");
            }
        }
    }

    #[test]
    fn a_prefix_applies_to_every_path() {
        let router = Router::new("/gw", "/gw/scrape", false);
        let found = |endpoint, path_head, tail: &'static str| {
            Some(Routed::Found { endpoint, path_head, path_tail: tail.as_bytes().into() })
        };
        assert_eq!(router.route(&Method::GET, "/gw/scrape"), found(Endpoint::Metrics, "/metrics", ""));
        assert_eq!(
            router.route(&Method::PUT, "/gw/metrics/job/a"),
            found(Endpoint::Push, "/metrics/job/", "a")
        );
        assert_eq!(router.route(&Method::GET, "/gw"), Some(Routed::Redirect("/gw/".to_owned())));
        assert_eq!(router.route(&Method::GET, "/metrics"), Some(Routed::NotFound));
        assert_eq!(router.route(&Method::PUT, "/gw/api/v1/admin/wipe"), Some(Routed::NotFound));
    }
}
