//! Lines or exact protobuf reproduce what was pushed.

use proptest::prelude::*;
use prost::Message;

use super::strategies::families;
use super::{Contents, contents, delimited, exact_parts, gauge};
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{decode_family, message, parse};
use crate::exposition::render::{Rendered, RenderedFamily, render, write_header};
use crate::exposition::text;

const BYTES_MAX: usize = 1 << 24;

/// The contents of a rendered family, from its exact protobuf or its lines.
fn reproduced(rendered: &Rendered, family: &RenderedFamily) -> Option<Contents> {
    if let Some(exact) = rendered.exact(family) {
        let families = decode_family(exact).expect("written by the gateway");
        return Some(contents(&families, &families.families[0]));
    }
    let mut body = Vec::new();
    write_header(&mut body, rendered.name(family), family.kind, None);
    body.extend_from_slice(rendered.text(family));
    let families = text::parse(&body, NameRules::Legacy).expect("written by the gateway");
    let mut contents = contents(&families, families.families.first()?);
    // These two are stored beside the lines.
    contents.help = rendered.help(family).map(ToOwned::to_owned);
    contents.kind = family.kind;
    Some(contents)
}

proptest! {
    #[test]
    fn protobuf_pushes_are_reproduced(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, BYTES_MAX).expect("consistent");
        prop_assert_eq!(families.families.len(), rendered.families().len());
        for (pushed, family) in families.families.iter().zip(rendered.families()) {
            let Some(reproduced) = reproduced(&rendered, family) else {
                prop_assert!(pushed.metrics.is_empty());
                continue;
            };
            prop_assert_eq!(contents(&families, pushed), reproduced);
        }
    }

    /// prost decodes exact protobuf to what was pushed.
    #[test]
    fn exact_protobuf_is_the_pushed_message(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, BYTES_MAX).expect("consistent");
        for (pushed, family) in messages.iter().zip(rendered.families()) {
            let Some(exact) = rendered.exact(family) else { continue };
            let exact = message::MetricFamily::decode(exact).expect("written by the gateway");
            prop_assert_eq!(exact.metric.len(), pushed.metric.len());
            for metric in &pushed.metric {
                let number = metric.label.last().expect("every metric has a number");
                let stored = exact.metric.iter().find(|stored| stored.label.contains(number)).expect("all are there");
                prop_assert_eq!(exact_parts(metric), exact_parts(stored));
            }
        }
    }

    /// The stored form of a text push is what rendering produced.
    #[test]
    fn text_pushes_are_reproduced(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, BYTES_MAX).expect("consistent");
        let mut body = Vec::new();
        for family in rendered.families() {
            write_header(&mut body, rendered.name(family), family.kind, rendered.help(family));
            body.extend_from_slice(rendered.text(family));
        }
        let families = text::parse(&body, NameRules::Legacy).expect("written by the gateway");
        let rendered = render(&families, &[], NameRules::Legacy, BYTES_MAX).expect("consistent");
        for (pushed, family) in families.families.iter().zip(rendered.families()) {
            prop_assert_eq!(contents(&families, pushed), reproduced(&rendered, family).expect("has metrics"));
        }
    }
}

fn exact_contents(body: &str) -> Option<Contents> {
    let families = text::parse(body.as_bytes(), NameRules::Legacy).expect("valid");
    let rendered = render(&families, &[("job".to_owned(), "a".to_owned())], NameRules::Legacy, BYTES_MAX)
        .expect("consistent");
    let family = &rendered.families()[0];
    rendered.exact(family).map(|_| reproduced(&rendered, family).expect("has metrics"))
}

#[test]
fn common_text_needs_no_exact_protobuf() {
    for body in [
        "m 1\nm{a=\"x\"} -1.5\n",
        "# HELP m Help.\n# TYPE m counter\nm NaN\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 3\ns_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1.5\nh_bucket{le=\"+Inf\"} 3\nh_sum 1\nh_count 3\n",
    ] {
        assert_eq!(exact_contents(body), None, "{body}");
    }
}

#[test]
fn inexact_text_has_exact_protobuf() {
    for body in [
        "m -0\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} -0\ns_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 3\n",
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum -0\nh_count 1\n",
    ] {
        let contents = exact_contents(body).unwrap_or_else(|| panic!("{body}"));
        assert_eq!(contents.metrics[0].labels[1], ("job".to_owned(), "a".to_owned()));
    }
}

#[test]
fn exact_protobuf_has_no_added_bucket_and_keeps_the_sign_of_zero() {
    let contents =
        exact_contents("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum -0\nh_count 3\n").expect("exact");
    assert_eq!(contents.metrics[0].points, [(1.0_f64.to_bits(), 1.0_f64.to_bits())]);
    assert_eq!(contents.metrics[0].value, [3.0_f64.to_bits(), (-0.0_f64).to_bits()]);
}

#[test]
fn a_gauge_histogram_needs_only_its_type_beside_the_lines() {
    let mut family = gauge("h", 0.0);
    let infinite = message::Bucket { upper_bound: Some(f64::INFINITY), ..Default::default() };
    let histogram = message::Histogram { bucket: vec![infinite], ..Default::default() };
    family.kind = Some(5);
    family.metric[0] = message::Metric { histogram: Some(histogram), ..Default::default() };
    let body = delimited(&[family]);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    let rendered = render(&families, &[], NameRules::Legacy, BYTES_MAX).expect("consistent");
    assert_eq!(rendered.families()[0].kind, MetricType::GaugeHistogram);
    assert_eq!(rendered.exact(&rendered.families()[0]), None);
}
