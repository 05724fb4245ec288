//! Paths and methods → what is asked for.
//!
//! Behaves as the router of the official program does: one table per method, a redirect to the clean path or to the right
//! case where that would match, OPTIONS answered by itself, 405 with every allowed method.

use http::Method;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `/-/healthy`
    Healthy,
    /// `/-/ready`
    Ready,
    /// `/-/quit`
    Quit,
    /// The exposition.
    Metrics,
    /// `/metrics/job/<job>…`; the flag says whether the job is base64.
    Group(bool),
    /// The web page.
    Page,
    /// A file of the web page.
    Static,
    /// `/api/v1/status`
    ApiStatus,
    /// `/api/v1/metrics`
    ApiMetrics,
    /// `/api/v1/groups`
    ApiGroups,
    /// `/api/v1/admin/wipe`
    Wipe,
    /// Any path below `/api/v1`, for OPTIONS.
    ApiOptions,
}

/// The answer of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// The path exists for this method; with what follows the fixed part of the path.
    Found(Target, String),
    /// Go to this path. Temporary where the method must stay.
    Redirect(String),
    /// The path exists for these methods only, sorted, with OPTIONS.
    NotAllowed(String),
    /// OPTIONS on a path with these methods.
    Options(String),
    /// No such path.
    NotFound,
}

#[derive(Debug)]
struct Pattern {
    /// Literal start of the path, decoded.
    prefix: String,
    tail: Tail,
    methods: &'static [&'static str],
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// The path ends here.
    Nothing,
    /// Anything may follow, also nothing.
    Anything,
    /// A value and then anything: an empty value needs a slash behind it.
    Value,
}

/// The paths of one gateway.
#[derive(Debug)]
pub struct Router {
    patterns: Vec<Pattern>,
    api_prefix: String,
}

const GET: &[&str] = &["GET"];
const PUSH: &[&str] = &["DELETE", "POST", "PUT"];
const QUIT: &[&str] = &["GET", "POST", "PUT"];
const PUT: &[&str] = &["PUT"];
const OPTIONS: &[&str] = &["OPTIONS"];

impl Router {
    /// `prefix` is empty or starts with a slash and does not end with one. `telemetry_path` has it in front.
    pub fn new(prefix: &str, telemetry_path: &str, with_wipe: bool) -> Self {
        let pattern = |path: &str, tail, methods, target| Pattern {
            prefix: format!("{prefix}{path}"),
            tail,
            methods,
            target,
        };
        let mut patterns = vec![
            pattern("/-/healthy", Tail::Nothing, GET, Target::Healthy),
            pattern("/-/ready", Tail::Nothing, GET, Target::Ready),
            pattern("/-/quit", Tail::Nothing, QUIT, Target::Quit),
            Pattern {
                prefix: telemetry_path.to_owned(),
                tail: Tail::Nothing,
                methods: GET,
                target: Target::Metrics,
            },
            pattern("/metrics/job/", Tail::Value, PUSH, Target::Group(false)),
            pattern("/metrics/job@base64/", Tail::Value, PUSH, Target::Group(true)),
            pattern("/status", Tail::Nothing, GET, Target::Page),
            pattern("/", Tail::Nothing, GET, Target::Page),
            pattern("/static/", Tail::Anything, GET, Target::Static),
            pattern("/api/v1/status", Tail::Nothing, GET, Target::ApiStatus),
            pattern("/api/v1/metrics", Tail::Nothing, GET, Target::ApiMetrics),
            pattern("/api/v1/groups", Tail::Nothing, GET, Target::ApiGroups),
            pattern("/api/v1/", Tail::Anything, OPTIONS, Target::ApiOptions),
        ];
        if with_wipe {
            patterns.push(pattern("/api/v1/admin/wipe", Tail::Nothing, PUT, Target::Wipe));
        }
        Self { patterns, api_prefix: format!("{prefix}/api/") }
    }

    /// Whether a path belongs to the API, whose requests are not decoded.
    pub fn is_api(&self, raw_path: &str) -> bool {
        raw_path.starts_with(&self.api_prefix)
    }

    /// Routes a request. `raw_path` is as sent; it is cleaned before and split after it is decoded, so an encoded dot segment
    /// is a value but an encoded slash separates. `None` where the path is not valid percent-encoding.
    pub fn route(&self, method: &Method, raw_path: &str) -> Option<Routed> {
        let clean = clean(raw_path);
        if clean != raw_path && method != Method::CONNECT {
            return Some(Routed::Redirect(clean));
        }
        let path = decode(raw_path)?;
        if let Some(found) = self.find(method.as_str(), &path) {
            return Some(found);
        }
        let in_table = self.patterns.iter().any(|pattern| pattern.methods.contains(&method.as_str()));
        if in_table
            && path != "/"
            && let Some(other) = self.other_spelling(method.as_str(), &path)
        {
            return Some(Routed::Redirect(encode(&other)));
        }
        let allowed = self.allowed(&path);
        Some(match (allowed.is_empty(), method == Method::OPTIONS) {
            (true, _) => Routed::NotFound,
            (false, true) => Routed::Options(allowed),
            (false, false) => Routed::NotAllowed(allowed),
        })
    }

    fn find(&self, method: &str, path: &str) -> Option<Routed> {
        let matching = |pattern: &&Pattern| pattern.methods.contains(&method) && pattern.matches(path);
        let pattern = self.patterns.iter().find(matching)?;
        Some(Routed::Found(pattern.target, path[pattern.prefix.len()..].to_owned()))
    }

    /// The same path with or without its last slash, or in the right case.
    fn other_spelling(&self, method: &str, path: &str) -> Option<String> {
        let patterns = || self.patterns.iter().filter(|pattern| pattern.methods.contains(&method));
        let other_slash = match path.strip_suffix('/') {
            Some(without) => without.to_owned(),
            None => format!("{path}/"),
        };
        if patterns().any(|pattern| pattern.matches_start(&other_slash) || other_slash == pattern.bare()) {
            return Some(other_slash);
        }
        patterns().find_map(|pattern| {
            let start = path.get(..pattern.prefix.len())?;
            let right = format!("{}{}", pattern.prefix, &path[start.len()..]);
            (start.eq_ignore_ascii_case(&pattern.prefix) && pattern.matches(&right)).then_some(right)
        })
    }

    fn allowed(&self, path: &str) -> String {
        let mut methods: Vec<&str> = self
            .patterns
            .iter()
            .filter(|pattern| pattern.target != Target::ApiOptions && pattern.matches(path))
            .flat_map(|pattern| pattern.methods)
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

impl Pattern {
    fn matches(&self, path: &str) -> bool {
        match (path.strip_prefix(&self.prefix), self.tail) {
            (None, _) => false,
            (Some(rest), Tail::Nothing) => rest.is_empty(),
            (Some(_), Tail::Anything) => true,
            (Some(rest), Tail::Value) => !rest.is_empty(),
        }
    }

    /// As [`Self::matches`], where a slash was added or taken off: a value's slash is its own affair.
    fn matches_start(&self, path: &str) -> bool {
        self.tail != Tail::Value && self.matches(path)
    }

    /// The path up to a value, without the slash: what a path with an empty value is redirected to.
    fn bare(&self) -> &str {
        match self.target {
            Target::Group(false) => self.prefix.trim_end_matches('/'),
            _ => "\0",
        }
    }
}

/// Takes out empty, `.` and `..` segments; a slash at the end stays.
fn clean(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let ends_open = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let slash = if ends_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

/// Percent-decodes a path. Bytes that are not UTF-8 are kept apart from every valid path by a replacement character, and
/// [`super::grouping_key::grouping_key`] looks at the raw path itself.
fn decode(raw: &str) -> Option<String> {
    if !has_valid_escapes(raw) {
        return None;
    }
    Some(percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned())
}

/// Whether each `%` is followed by two hexadecimal digits.
pub(super) fn has_valid_escapes(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

fn encode(path: &str) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const SET: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'?').add(b'#').add(b'%');
    utf8_percent_encode(path, SET).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn clean_paths_match_and_others_are_redirected() {
        let put = Method::PUT;
        assert_eq!(redirect(&put, "/metrics/job/a//b"), "/metrics/job/a/b");
        assert_eq!(redirect(&put, "/metrics/job/a/../b"), "/metrics/job/b");
        assert_eq!(redirect(&put, "/metrics/JOB/a"), "/metrics/job/a");
        assert_eq!(redirect(&put, "/metrics/job/"), "/metrics/job");
        assert_eq!(redirect(&Method::GET, "/metrics/"), "/metrics");
        assert_eq!(redirect(&Method::GET, "/static"), "/static/");
        assert_eq!(redirect(&Method::GET, "/-/Healthy"), "/-/healthy");
    }

    #[test]
    fn what_matches_nothing_is_not_found() {
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
    fn a_wrong_method_is_told_the_right_ones() {
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
            Some(Routed::Found(Target::Group(false), rest)) => rest,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(found("/metrics/job/%2F"), "/");
        assert_eq!(found("/metrics/job/a/zone/%2e%2e"), "a/zone/..");
        assert_eq!(found("/metrics/%6Aob/a"), "a");
    }

    #[test]
    fn a_prefix_moves_everything() {
        let router = Router::new("/gw", "/gw/scrape", false);
        let found = |target, rest: &str| Some(Routed::Found(target, rest.to_owned()));
        assert_eq!(router.route(&Method::GET, "/gw/scrape"), found(Target::Metrics, ""));
        assert_eq!(router.route(&Method::PUT, "/gw/metrics/job/a"), found(Target::Group(false), "a"));
        assert_eq!(router.route(&Method::GET, "/gw"), Some(Routed::Redirect("/gw/".to_owned())));
        assert_eq!(router.route(&Method::GET, "/metrics"), Some(Routed::NotFound));
        assert_eq!(router.route(&Method::PUT, "/gw/api/v1/admin/wipe"), Some(Routed::NotFound));
    }
}
