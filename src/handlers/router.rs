//! From a path and a method to an endpoint.
//!
//! Behaves like the router of the official program: one table per method, a redirect to the clean path or the right case if that would
//! match, a response to OPTIONS, and 405 with all allowed methods.

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
pub enum Routed {
    /// The path and the method lead to an endpoint.
    Found {
        /// The endpoint.
        endpoint: Endpoint,
        /// The head of the path that matched, without the route prefix.
        path_head: &'static str,
        /// The decoded rest of the path.
        path_tail: String,
    },
    /// The client should use this path instead. The redirect is temporary where the method must be preserved.
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
            if endpoint == Endpoint::Wipe && !with_admin_api {
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
    /// The path is cleaned before it is decoded, and matched afterwards. So an encoded dot segment is a value, but an encoded slash
    /// separates. Returns `None` if the path is not valid percent-encoding.
    pub fn route(&self, method: &Method, raw_path: &str) -> Option<Routed> {
        let clean = clean(raw_path);
        if clean != raw_path && method != Method::CONNECT {
            return Some(Routed::Redirect(clean));
        }
        let path = decode(raw_path)?;
        if let Some(found) = self.find(method.as_str(), &path) {
            return Some(found);
        }
        let is_known_method = self.routes.iter().any(|route| route.allows(method.as_str()));
        if is_known_method
            && path != "/"
            && let Some(other) = self.other_spelling(method.as_str(), &path)
        {
            return Some(Routed::Redirect(encode(&other)));
        }
        let allowed = self.allowed(&path);
        Some(if allowed.is_empty() {
            Routed::NotFound
        } else if method == Method::OPTIONS {
            Routed::Options(allowed)
        } else {
            Routed::NotAllowed(allowed)
        })
    }

    fn find(&self, method: &str, path: &str) -> Option<Routed> {
        let route = self.routes.iter().find(|route| route.allows(method) && route.matches(path))?;
        let path_tail = path[route.start.len()..].to_owned();
        Some(Routed::Found { endpoint: route.endpoint, path_head: route.path.head, path_tail })
    }

    /// The same path with or without its last slash, or in the right case.
    fn other_spelling(&self, method: &str, path: &str) -> Option<String> {
        let routes = || self.routes.iter().filter(|route| route.allows(method));
        let other_slash = match path.strip_suffix('/') {
            Some(without) => without.to_owned(),
            None => format!("{path}/"),
        };
        let leads_to = |route: &Route| match route.path.tail {
            Tail::End | Tail::Anything => route.matches(&other_slash),
            // A slash at the end of a job belongs to the job.
            Tail::Job => other_slash == route.start.trim_end_matches('/'),
            Tail::JobBase64 => false,
        };
        if routes().any(leads_to) {
            return Some(other_slash);
        }
        routes().find_map(|route| {
            let start = path.get(..route.start.len())?;
            let corrected = format!("{}{}", route.start, &path[start.len()..]);
            (start.eq_ignore_ascii_case(&route.start) && route.matches(&corrected)).then_some(corrected)
        })
    }

    /// The methods of a path, separated by commas; empty if the path does not exist.
    fn allowed(&self, path: &str) -> String {
        let mut methods: Vec<&str> = self
            .routes
            .iter()
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

    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&self.start).is_some_and(|rest| match self.path.tail {
            Tail::End => rest.is_empty(),
            Tail::Anything => true,
            Tail::Job | Tail::JobBase64 => !rest.is_empty(),
        })
    }
}

/// Resolves empty, `.` and `..` segments. A trailing slash remains.
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
    let has_trailing_slash = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let slash = if has_trailing_slash && !segments.is_empty() { "/" } else { "" };
    format!("/{}{slash}", segments.join("/"))
}

/// Percent-decodes a path, or returns `None` if an escape is invalid. Bytes that are not UTF-8 become a replacement character, which no
/// literal path contains; [`super::grouping_key::grouping_key`] checks the raw path.
fn decode(raw: &str) -> Option<String> {
    has_valid_escapes(raw).then(|| percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned())
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_valid_escapes(raw: &str) -> bool {
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
                path_tail
            }
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(found("/metrics/job/%2F"), "/");
        assert_eq!(found("/metrics/job/a/zone/%2e%2e"), "a/zone/..");
        assert_eq!(found("/metrics/%6Aob/a"), "a");
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
        let found = |endpoint, path_head, tail: &str| {
            Some(Routed::Found { endpoint, path_head, path_tail: tail.to_owned() })
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
