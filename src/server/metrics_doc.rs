//! Generates `docs/metrics.md` from the declarations.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use crate::telemetry::{OwnKind, OwnMetric};

use super::{METRICS, declared_metrics};

const INTRODUCTION: &str = "\
# Metrics of the gateway

The gateway's own metrics, as they appear in each scrape beside the pushed ones. Names, labels and help of `process_*`,
`pushgateway_*` and the push times are those of the official program; `sluicegate_*` are additions. Summaries have the quantiles
0.1, 0.5 and 0.9 over the last ten minutes. *Module* is the folder of `src/` that declares the metric.

This page is generated. After a change of a declaration, run `UPDATE_DOCS=1 cargo test --lib metrics_doc`.

| metric | type | labels | help | module |
|---|---|---|---|---|
";

fn page() -> String {
    let mut metrics: Vec<(&str, OwnMetric)> = METRICS
        .iter()
        .flat_map(|(module, metrics)| metrics.iter().map(|metric| (*module, *metric)))
        .collect();
    metrics.sort_by_key(|(_, metric)| metric.name);
    let mut page = INTRODUCTION.to_owned();
    for (module, OwnMetric { name, kind, labels, help }) in metrics {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let kind = kind.name();
        writeln!(page, "| `{name}` | {kind} | {labels} | {help} | {module} |")
            .expect("writing to a String succeeds");
    }
    page
}

#[test]
fn the_page_matches_the_declarations() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).expect("docs/metrics.md can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/metrics.md is out of date; run `UPDATE_DOCS=1 cargo test --lib metrics_doc` and commit the result"
    );
}

#[test]
fn names_and_help_follow_the_conventions() {
    for OwnMetric { name, kind, help, .. } in declared_metrics() {
        assert_eq!(name.ends_with("_total"), kind == OwnKind::Counter, "{name}");
        assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
        assert!(help.ends_with('.') && !help.contains(['\\', '\n', '|']), "{name}");
    }
}

#[test]
fn no_family_is_declared_twice() {
    let mut names: Vec<_> = declared_metrics().map(|metric| metric.name).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}
