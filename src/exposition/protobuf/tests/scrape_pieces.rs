//! Encoded pieces form one family when they are concatenated.

use proptest::prelude::*;
use prost::Message;

use super::strategies::families;
use super::{contents, delimited};
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::message::{LabelPair, MetricFamily};
use crate::exposition::protobuf::{
    FamilyHeader, decode_family, metrics_of_exact, metrics_of_lines, parse, write_family_header,
};
use crate::exposition::render::{Rendered, RenderedFamily, render, write_header};
use crate::exposition::text;

fn metrics(rendered: &Rendered, family: &RenderedFamily) -> Vec<u8> {
    let mut metrics = Vec::new();
    match rendered.exact(family) {
        Some(exact) => metrics.extend_from_slice(metrics_of_exact(exact)),
        None => {
            let (name, lines) = (rendered.name(family), rendered.text(family));
            metrics_of_lines(&mut metrics, name, family.kind, lines).expect("written by the gateway");
        }
    }
    metrics
}

proptest! {
    /// Two groups push the same families. The scrape has the metrics of both.
    #[test]
    fn pieces_of_two_groups_are_one_family(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let groups = ["a", "b"].map(|job| {
            render(&families, &[("job".to_owned(), job.to_owned())], NameRules::Legacy, 1 << 24).expect("consistent")
        });
        for (index, message) in messages.iter().enumerate() {
            let [a, b] = groups.each_ref().map(|group| metrics(group, &group.families()[index]));
            let family = &groups[0].families()[index];
            let (name, help) = (groups[0].name(family), groups[0].help(family));
            let unit = families.families[index].unit.as_deref();
            let mut exposition = Vec::new();
            let header = FamilyHeader { name, help, kind: family.kind, unit };
            write_family_header(&mut exposition, header, a.len() + b.len());
            exposition.extend_from_slice(&a);
            exposition.extend_from_slice(&b);

            let mut rest = exposition.as_slice();
            let scraped = MetricFamily::decode_length_delimited(&mut rest).expect("valid");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(&scraped.name, &message.name);
            prop_assert_eq!(&scraped.help, &message.help);
            prop_assert_eq!(&scraped.unit, &message.unit);
            prop_assert_eq!(scraped.kind, message.kind);
            prop_assert_eq!(scraped.metric.len(), 2 * message.metric.len());
            let labels = scraped.metric.iter().flat_map(|metric| &metric.label);
            let jobs: Vec<_> = labels.filter(|label| label.name() == b"job").map(LabelPair::value).collect();
            let count = message.metric.len();
            prop_assert_eq!(jobs, [vec![&b"a"[..]; count], vec![b"b"; count]].concat());
        }
    }

    #[test]
    fn metrics_of_lines_equal_the_lines(messages in families()) {
        let body = delimited(&messages);
        let families = parse(&body, NameRules::Legacy).expect("valid");
        let rendered = render(&families, &[], NameRules::Legacy, 1 << 24).expect("consistent");
        for family in rendered.families() {
            let name = rendered.name(family);
            let mut text = Vec::new();
            write_header(&mut text, name, family.kind, None);
            text.extend_from_slice(rendered.text(family));
            let parsed = text::parse(&text, NameRules::Legacy).expect("written by the gateway");
            let Some(parsed_family) = parsed.families.first() else { continue };

            let mut message = Vec::new();
            let mut piece = Vec::new();
            metrics_of_lines(&mut piece, name, family.kind, rendered.text(family)).expect("written by the gateway");
            crate::exposition::protobuf::write_header_fields(
                &mut message,
                FamilyHeader { name, help: None, kind: parsed_family.kind, unit: None },
            );
            message.extend_from_slice(&piece);
            prop_assert_eq!(metrics_of_exact(&message), piece.as_slice());
            let written = decode_family(&message).expect("written by the gateway");
            let mut written = contents(&written, &written.families[0]);
            let mut parsed = contents(&parsed, parsed_family);
            // Fractions have a field of their own in protobuf, but not in text.
            written.metrics.iter_mut().chain(&mut parsed.metrics).for_each(|metric| metric.exact.clear());
            prop_assert_eq!(written, parsed);
        }
    }
}

#[test]
fn lines_that_rendering_does_not_write_are_an_error() {
    let mut out = b"kept".to_vec();
    assert!(metrics_of_lines(&mut out, "m", MetricType::Gauge, b"m 1\nm{ 2\n").is_err());
    assert_eq!(out, b"kept");
}
