//! Negotiation: the format, the escaping and the content coding that a client gets.
//!
//! `Accept` is parsed and ordered as by the official program, including its oddities, because the header that Prometheus sends evolved
//! around them: parameters are split at every semicolon and equals sign, quotes have no meaning, and the last of repeated parameters
//! wins. `escaping` is that of the last clause up to the one that matches, even if that clause has another type.
//!
//! `Accept-Encoding` is stricter: a coding other than identity is sent only if the client names it.

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};

use crate::encoding::encode::Coding;
use crate::exposition::Format;
use crate::exposition::escape::Escaping;

/// Further clauses are ignored. No client sends so many, and sorting them takes quadratic time.
const CLAUSES_MAX: usize = 64;

/// One clause of the header, with the parameters that matter.
#[derive(Debug, Clone, Copy)]
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f64,
    version: &'a str,
    proto: &'a str,
    encoding: &'a str,
    escaping: &'a str,
}

/// The format and the escaping of names; text with underscores if no clause matches.
pub fn format(headers: &HeaderMap) -> (Format, Escaping) {
    // If the header is repeated, the first one wins, as in the official program.
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let mut escaping = Escaping::Underscores;
    for clause in clauses(accept) {
        if let Some(known) = Escaping::ALL.into_iter().find(|known| known.name() == clause.escaping) {
            escaping = known;
        }
        if clause.asks_for_protobuf() {
            return (Format::Protobuf, escaping);
        }
        if clause.asks_for_text() {
            break;
        }
    }
    (Format::Text, escaping)
}

impl Clause<'_> {
    fn asks_for_protobuf(&self) -> bool {
        (self.kind, self.subtype) == ("application", "vnd.google.protobuf")
            && self.proto == "io.prometheus.client.MetricFamily"
            && self.encoding == "delimited"
    }

    fn asks_for_text(&self) -> bool {
        (self.kind, self.subtype) == ("text", "plain") && matches!(self.version, "" | "0.0.4")
    }

    /// The order of the official program. It is not a strict weak order, so the result depends on the sorting algorithm.
    fn comes_before(&self, other: &Self) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }
}

/// The clauses in the order in which they are matched.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(read_clause).take(CLAUSES_MAX).collect();
    // Insertion sort, which Go uses for up to twelve elements.
    for last in 1..clauses.len() {
        let mut at = last;
        while at > 0 && clauses[at].comes_before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

fn read_clause(clause: &str) -> Option<Clause<'_>> {
    let (media_type, parameters) = cut(trim_spaces(clause), ';');
    let (kind, rest) = cut(media_type, '/');
    let (kind, (subtype, surplus)) = (trim_spaces(kind), cut(rest, '/'));
    let subtype = match (kind, rest) {
        ("*", "") => "*",
        (_, "") => return None,
        _ if !surplus.is_empty() => return None,
        _ => trim_spaces(subtype),
    };
    let (version, proto, encoding, escaping) = ("", "", "", "");
    let mut clause = Clause { kind, subtype, quality: 1.0, version, proto, encoding, escaping };
    for parameter in parameters.split(';') {
        let (name, rest) = cut(parameter, '=');
        let (value, surplus) = cut(rest, '=');
        if rest.is_empty() || !surplus.is_empty() {
            continue;
        }
        match trim_spaces(name) {
            "q" => clause.quality = value.parse::<f32>().map_or(0.0, f64::from),
            "version" => clause.version = trim_spaces(value),
            "proto" => clause.proto = trim_spaces(value),
            "encoding" => clause.encoding = trim_spaces(value),
            "escaping" => clause.escaping = trim_spaces(value),
            _ => {}
        }
    }
    Some(clause)
}

/// The text before and after the first separator.
fn cut(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

/// Trims spaces, but not tabs.
fn trim_spaces(text: &str) -> &str {
    text.trim_matches(' ')
}

/// The content type of the response.
pub fn content_type(format: Format, escaping: Escaping) -> HeaderValue {
    let format = match format {
        Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        Format::Protobuf => {
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        }
    };
    let written = format!("{format}; escaping={}", escaping.name());
    HeaderValue::try_from(written).expect("the value has only printable characters")
}

/// The content coding. Among codings of equal quality, the first of [`Coding::ALL`] wins; `*` means identity.
pub fn coding(headers: &HeaderMap) -> Coding {
    let mut best = (Coding::Identity, 0.0);
    for offered in Coding::ALL {
        let quality = quality_of(headers, offered);
        if quality > best.1 {
            best = (offered, quality);
        }
    }
    best.0
}

/// The quality that the client gives a coding; 0 if it does not accept it.
fn quality_of(headers: &HeaderMap, coding: Coding) -> f64 {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let qualities = values.flat_map(|value| value.split(',')).filter_map(|part| {
        let (name, parameters) = cut(part, ';');
        let name = name.trim();
        let is_named =
            name.eq_ignore_ascii_case(coding.name()) || (name == "*" && coding == Coding::Identity);
        let quality = parameters.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
        is_named.then_some(quality)
    });
    qualities.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    fn headers(name: http::header::HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::try_from(value).expect("the header is valid"))].into_iter().collect()
    }

    fn negotiated(accept: &str) -> (Format, Escaping) {
        format(&headers(ACCEPT, accept))
    }

    #[test]
    fn understands_the_headers_of_known_clients() {
        use Escaping::{AllowUtf8, Dots, Underscores, Values};
        use Format::{Protobuf, Text};
        for (accept, expected) in [
            ("", (Text, Underscores)),
            ("*/*", (Text, Underscores)),
            ("text/plain", (Text, Underscores)),
            ("text/html", (Text, Underscores)),
            (PROTOBUF, (Protobuf, Underscores)),
            ("application/vnd.google.protobuf", (Text, Underscores)),
            // Prometheus 2.55.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                (Text, Underscores),
            ),
            // Prometheus 3.0 repeats parameters.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;\
                 version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;\
                 q=0.2,*/*;q=0.1",
                (Text, AllowUtf8),
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                 escaping=allow-utf-8;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                (Protobuf, AllowUtf8),
            ),
            // The version of the first clause does not match, but its escaping counts.
            ("text/plain;version=1.0.0;escaping=dots,text/plain;version=0.0.4;q=0.5", (Text, Dots)),
            ("text/plain;escaping=values", (Text, Values)),
            ("text/plain;escaping=unheard-of", (Text, Underscores)),
            ("text/plain;q=0.5;escaping=dots,application/x;escaping=values", (Text, Dots)),
            // The text formats of protobuf are not offered.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text,text/plain",
                (Text, Underscores),
            ),
        ] {
            assert_eq!(negotiated(accept), expected, "{accept}");
        }
    }

    /// The reference implementation: reads the header step by step like the official program, with a map of parameters.
    fn reference_format(accept: &str) -> (Format, Escaping) {
        struct ReferenceClause {
            kind: String,
            subtype: String,
            quality: f64,
            parameters: HashMap<String, String>,
        }
        let next = |text: &str, separator: &str| -> (String, String) {
            match text.find(separator) {
                Some(at) => (text[..at].to_owned(), text[at + 1..].to_owned()),
                None => (text.to_owned(), String::new()),
            }
        };
        let trim = |text: String| text.trim_matches(' ').to_owned();
        let mut list: Vec<ReferenceClause> = Vec::new();
        let mut remaining = accept.to_owned();
        while !remaining.is_empty() {
            let (part, rest) = next(&remaining, ",");
            remaining = rest;
            let (media_type, mut rest) = next(&trim(part), ";");
            let (kind, subtypes) = next(&media_type, "/");
            let kind = trim(kind);
            let subtype = if subtypes.is_empty() {
                if kind != "*" {
                    continue;
                }
                "*".to_owned()
            } else {
                let (subtype, more) = next(&subtypes, "/");
                if !more.is_empty() {
                    continue;
                }
                trim(subtype)
            };
            let mut clause = ReferenceClause { kind, subtype, quality: 1.0, parameters: HashMap::new() };
            while !rest.is_empty() {
                let (parameter, more) = next(&rest, ";");
                rest = more;
                let (name, values) = next(&parameter, "=");
                if values.is_empty() {
                    continue;
                }
                let (value, more) = next(&values, "=");
                if !more.is_empty() {
                    continue;
                }
                if trim(name.clone()) == "q" {
                    clause.quality = value.parse::<f32>().map(f64::from).unwrap_or(0.0);
                } else {
                    clause.parameters.insert(trim(name), trim(value));
                }
            }
            list.push(clause);
        }
        let less = |a: &ReferenceClause, b: &ReferenceClause| {
            if a.quality > b.quality {
                return true;
            }
            if a.kind != "*" && b.kind == "*" {
                return true;
            }
            a.subtype != "*" && b.subtype == "*"
        };
        for i in 1..list.len() {
            let mut j = i;
            while j > 0 && less(&list[j], &list[j - 1]) {
                list.swap(j, j - 1);
                j -= 1;
            }
        }
        let mut escaping = Escaping::Underscores;
        for clause in list {
            let parameter = |name: &str| clause.parameters.get(name).map(String::as_str).unwrap_or_default();
            escaping = match parameter("escaping") {
                "allow-utf-8" => Escaping::AllowUtf8,
                "underscores" => Escaping::Underscores,
                "dots" => Escaping::Dots,
                "values" => Escaping::Values,
                _ => escaping,
            };
            let media_type = format!("{}/{}", clause.kind, clause.subtype);
            if media_type == "application/vnd.google.protobuf"
                && parameter("proto") == "io.prometheus.client.MetricFamily"
                && parameter("encoding") == "delimited"
            {
                return (Format::Protobuf, escaping);
            }
            if media_type == "text/plain"
                && (parameter("version") == "0.0.4" || parameter("version").is_empty())
            {
                return (Format::Text, escaping);
            }
        }
        (Format::Text, escaping)
    }

    fn accepts() -> impl Strategy<Value = String> {
        let media_type = prop::sample::select(vec![
            "text/plain",
            "application/vnd.google.protobuf",
            "application/openmetrics-text",
            "*/*",
            "*",
            "text/*",
            " text / plain ",
            "text",
            "text/plain/",
            "text/a/b",
            "",
        ]);
        let parameter = prop::sample::select(vec![
            "proto=io.prometheus.client.MetricFamily",
            "encoding=delimited",
            "encoding=text",
            " version = 0.0.4 ",
            "version=1.0.0",
            "version=",
            "escaping=allow-utf-8",
            "escaping=underscores",
            "escaping=dots",
            "escaping=values",
            "escaping=other",
            "q=0.5",
            "q=0.4",
            "q= 1",
            "q=0",
            "q=x",
            "a==",
            "a=b=",
            "a=b=c",
            "charset=utf-8",
            "",
        ]);
        let clause = (media_type, prop::collection::vec(parameter, 0..6))
            .prop_map(|(media_type, parameters)| format!("{media_type};{}", parameters.join(";")));
        let usual = Just(PROTOBUF.to_owned());
        let noise = "[ a-z/;=,*.0-9]{0,20}";
        prop::collection::vec(prop_oneof![6 => clause, 2 => usual, 1 => noise], 0..12)
            .prop_map(|c| c.join(","))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// The result is something that the client accepts, or text.
        #[test]
        fn agrees_with_the_reference_implementation(accept in accepts()) {
            let (format, escaping) = negotiated(&accept);
            prop_assert_eq!((format, escaping), reference_format(&accept));
            if format == Format::Protobuf {
                prop_assert!(accept.contains("vnd.google.protobuf") && accept.contains("delimited"));
            }
            if escaping != Escaping::Underscores {
                prop_assert!(accept.contains(escaping.name()));
            }
        }
    }

    #[test]
    fn compresses_only_if_the_client_names_the_coding() {
        let coding = |value| coding(&headers(ACCEPT_ENCODING, value));
        for value in ["gzip", "deflate, GZIP;q=0.5", "identity;q=0.5, gzip", "*;q=0.1, gzip"] {
            assert_eq!(coding(value), Coding::Gzip, "{value}");
        }
        for value in
            ["identity", "*", "", "gzip;q=0", "br", "gzipped", "gzip, identity", "gzip, *", "gzip;q=x"]
        {
            assert_eq!(coding(value), Coding::Identity, "{value}");
        }
        assert_eq!(super::coding(&HeaderMap::new()), Coding::Identity);
    }
}
