//! Lines give back what was pushed, or there is an exact form beside them that does.

use proptest::prelude::*;
use prost::Message;

use super::strategies::families;
use super::{Said, delimited, gauge, said, words};
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::{decode_family, message, parse};
use crate::exposition::render::{Rendered, RenderedFamily, render, write_header};
use crate::exposition::text;

const ROOM: usize = 1 << 24;

/// What the rendered family says, by its exact form or by its lines.
fn given_back(rendered: &Rendered, family: &RenderedFamily) -> Option<Said> {
    if let Some(exact) = rendered.exact(family) {
        let families = decode_family(exact).expect("written by ourselves");
        return Some(said(&families, &families.families[0]));
    }
    let mut body = Vec::new();
    write_header(&mut body, rendered.name(family), family.kind, None);
    body.extend_from_slice(rendered.text(family));
    let families = text::parse(&body, NameRules::Legacy).expect("written by ourselves");
    let mut said = said(&families, families.families.first()?);
    // These two are known beside the lines.
    said.help = rendered.help(family).map(ToOwned::to_owned);
    said.kind = family.kind;
    Some(said)
}

proptest! {
    #[test]
    fn what_is_pushed_as_protobuf_is_given_back(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, ROOM).expect("consistent");
        prop_assert_eq!(families.families.len(), rendered.families().len());
        for (pushed, family) in families.families.iter().zip(rendered.families()) {
            let Some(back) = given_back(&rendered, family) else {
                prop_assert!(pushed.metrics.is_empty());
                continue;
            };
            prop_assert_eq!(said(&families, pushed), back);
        }
    }

    /// Read by a stranger's decoder, what text has no place for is what was pushed.
    #[test]
    fn the_exact_form_is_the_message_that_was_pushed(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, ROOM).expect("consistent");
        for (pushed, family) in messages.iter().zip(rendered.families()) {
            let Some(exact) = rendered.exact(family) else { continue };
            let exact = message::MetricFamily::decode(exact).expect("written by ourselves");
            prop_assert_eq!(exact.metric.len(), pushed.metric.len());
            for metric in &pushed.metric {
                let number = metric.label.last().expect("every metric has a number");
                let twin = exact.metric.iter().find(|twin| twin.label.contains(number)).expect("all are there");
                prop_assert_eq!(words(metric), words(twin));
            }
        }
    }

    /// Text pushes reach protobuf only by what rendering made of them.
    #[test]
    fn what_is_pushed_as_text_is_given_back(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, ROOM).expect("consistent");
        let mut body = Vec::new();
        for family in rendered.families() {
            write_header(&mut body, rendered.name(family), family.kind, rendered.help(family));
            body.extend_from_slice(rendered.text(family));
        }
        let families = text::parse(&body, NameRules::Legacy).expect("written by ourselves");
        let rendered = render(&families, &[], NameRules::Legacy, ROOM).expect("consistent");
        for (pushed, family) in families.families.iter().zip(rendered.families()) {
            prop_assert_eq!(said(&families, pushed), given_back(&rendered, family).expect("has metrics"));
        }
    }
}

fn exact_of_text(body: &str) -> Option<Said> {
    let families = text::parse(body.as_bytes(), NameRules::Legacy).expect("valid");
    let rendered = render(&families, &[("job".to_owned(), "a".to_owned())], NameRules::Legacy, ROOM)
        .expect("consistent");
    let family = &rendered.families()[0];
    rendered.exact(family).map(|_| given_back(&rendered, family).expect("has metrics"))
}

#[test]
fn common_text_needs_no_exact_form() {
    for body in [
        "m 1\nm{a=\"x\"} -1.5\n",
        "# HELP m Help.\n# TYPE m counter\nm NaN\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 3\ns_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1.5\nh_bucket{le=\"+Inf\"} 3\nh_sum 1\nh_count 3\n",
    ] {
        assert_eq!(exact_of_text(body), None, "{body}");
    }
}

#[test]
fn text_that_text_cannot_give_back_has_an_exact_form() {
    for body in [
        "m -0\n",
        "# TYPE s summary\ns{quantile=\"0.5\"} -0\ns_count 2\n",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 3\n",
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum -0\nh_count 1\n",
    ] {
        let said = exact_of_text(body).unwrap_or_else(|| panic!("{body}"));
        assert_eq!(said.metrics[0].labels[1], ("job".to_owned(), "a".to_owned()));
    }
}

#[test]
fn the_exact_form_has_no_made_bucket_and_keeps_the_sign_of_zero() {
    let said =
        exact_of_text("# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum -0\nh_count 3\n").expect("exact");
    assert_eq!(said.metrics[0].points, [(1.0_f64.to_bits(), 1.0_f64.to_bits())]);
    assert_eq!(said.metrics[0].value, [3.0_f64.to_bits(), (-0.0_f64).to_bits()]);
}

#[test]
fn a_gauge_histogram_is_told_by_its_type_alone() {
    let mut family = gauge("h", 0.0);
    let infinite = message::Bucket { upper_bound: Some(f64::INFINITY), ..Default::default() };
    let histogram = message::Histogram { bucket: vec![infinite], ..Default::default() };
    family.kind = Some(5);
    family.metric[0] = message::Metric { histogram: Some(histogram), ..Default::default() };
    let body = delimited(&[family]);
    let families = parse(&body, NameRules::Legacy).expect("valid");
    let rendered = render(&families, &[], NameRules::Legacy, ROOM).expect("consistent");
    assert_eq!(rendered.families()[0].kind, MetricType::GaugeHistogram);
    assert_eq!(rendered.exact(&rendered.families()[0]), None);
}
