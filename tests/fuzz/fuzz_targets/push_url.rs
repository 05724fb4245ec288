//! Paths of pushes and deletes: routed, then parsed as a grouping key. The first byte selects the method; its highest bit
//! selects the name rules.
#![no_main]

use std::sync::LazyLock;

use http::Method;
use libfuzzer_sys::fuzz_target;
use sluicegate::exposition::names::NameRules;
use sluicegate::handlers::Endpoint;
use sluicegate::handlers::grouping_key::{GroupPath, grouping_key};
use sluicegate::handlers::router::{Routed, Router};
use sluicegate::shard::key::GroupingKey;

static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::new("/prefix", "/prefix/metrics", true));
const METHODS: [Method; 5] = [Method::PUT, Method::POST, Method::DELETE, Method::GET, Method::OPTIONS];
/// More than any path needs, fewer than clients follow.
const REDIRECTS_MAX: usize = 8;

fuzz_target!(|input: (u8, &str)| {
    let (method, path) = (&METHODS[usize::from(input.0) % METHODS.len()], input.1);
    let rules = if input.0 & 0x80 == 0 { NameRules::Legacy } else { NameRules::Utf8 };
    // hyper accepts only paths that start with a slash and have no spaces or control characters.
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'?') {
        return;
    }
    match ROUTER.route(method, path) {
        Some(Routed::Redirect(to)) => {
            // Redirects end: the router cleans the path, then corrects its case, then cleans dots that were encoded.
            let mut to = to;
            for _ in 0..REDIRECTS_MAX {
                match ROUTER.route(method, &to) {
                    Some(Routed::Redirect(next)) => to = next,
                    _ => return,
                }
            }
            panic!("redirects do not end: {path:?} to {to:?}");
        }
        Some(Routed::Found { endpoint: Endpoint::Push | Endpoint::Delete, path_head, path_tail }) => {
            let job_is_base64 = path_head.ends_with("@base64/");
            let group_path = GroupPath { tail: &path_tail, job_is_base64 };
            if let Ok(key) = grouping_key(&group_path, rules) {
                check_key(&key);
            }
        }
        _ => {}
    }
});

/// A key is encoded and parsed without loss, and has the same core as its variant with an empty instance.
fn check_key(key: &GroupingKey) {
    let labels = key.labels();
    assert_eq!(&GroupingKey::new(labels.iter().rev().cloned()), key);
    assert!(labels.is_sorted_by(|one, next| one.0 < next.0), "{labels:?}");
    assert!(labels.iter().any(|(name, value)| name == "job" && !value.is_empty()), "{labels:?}");
    assert!(labels.iter().all(|(name, _)| !name.is_empty() && !name.starts_with("__")), "{labels:?}");
    if let Some(variant) = key.empty_instance_variant() {
        assert_eq!(variant.home(64), key.home(64));
        assert_eq!(variant.empty_instance_variant().as_ref(), Some(key));
        assert_eq!(variant.series_labels(), key.series_labels());
    }
}
