//! The reference implementation of the parser, for tests: one byte at a time, nested lists, linear searches.
//!
//! It shares only the types of families with the parser, so a mistake would have to be made twice.

use crate::exposition::lengths::LengthLimits;
use crate::exposition::model::{self, Families, MetricType, Value};

/// A family with its metrics nested in it. Floats are bits, so that NaN equals NaN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: Option<String>,
    pub(super) kind: Option<MetricType>,
    pub(super) metrics: Vec<Metric>,
}

/// A metric of any type.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Metric {
    pub(super) labels: Vec<(String, String)>,
    pub(super) single: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) sum: Option<u64>,
    pub(super) points: Vec<(u64, u64)>,
    pub(super) timestamp: Option<i64>,
}

/// The line, and the start of the reason.
pub(super) type Error = (u32, &'static str);

const CUT_OFF: &str = "unexpected end of input stream";

pub(super) fn bits(float: f64) -> u64 {
    if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() }
}

/// Converts the parser's flat tables to nested ones.
pub(super) fn nested(families: &Families<'_>) -> Vec<Family> {
    let nest = |metric: &model::Metric| {
        let mut nested = Metric::default();
        for label in families.labels_of(metric) {
            nested.labels.push((label.name.to_string(), label.value.to_string()));
        }
        nested.timestamp = metric.timestamp;
        let points = match metric.value {
            Value::Single(value) => {
                nested.single = Some(bits(value));
                return nested;
            }
            Value::Summary { count, sum, quantiles } => {
                nested.count = Some(count);
                nested.sum = Some(bits(sum));
                quantiles
            }
            Value::Histogram { count, sum, buckets } => {
                nested.count = Some(bits(count));
                nested.sum = Some(bits(sum));
                buckets
            }
        };
        for point in families.points_of(points) {
            nested.points.push((bits(point.at), bits(point.value)));
        }
        nested
    };
    let mut all = Vec::new();
    for family in &families.families {
        all.push(Family {
            name: family.name.to_string(),
            help: family.help.as_ref().map(ToString::to_string),
            kind: Some(family.kind),
            metrics: families.metrics_of(family).iter().map(nest).collect(),
        });
    }
    all
}

/// Parses like [`super::parse_with`].
pub(super) fn parse(body: &[u8], utf8_names: bool, lengths: LengthLimits) -> Result<Vec<Family>, Error> {
    let mut parser =
        ReferenceParser { body: body.to_vec(), at: 0, line: 0, utf8_names, lengths, families: Vec::new() };
    loop {
        parser.line += 1;
        parser.blanks();
        match parser.peek() {
            None => break,
            Some(b'\n') => parser.at += 1,
            Some(b'#') => parser.comment()?,
            Some(_) => parser.sample()?,
        }
    }
    parser.families.retain(|family| !family.metrics.is_empty());
    Ok(parser.families)
}

struct ReferenceParser {
    body: Vec<u8>,
    at: usize,
    line: u32,
    utf8_names: bool,
    lengths: LengthLimits,
    families: Vec<Family>,
}

fn is_histogram(kind: Option<MetricType>) -> bool {
    kind == Some(MetricType::Histogram) || kind == Some(MetricType::GaugeHistogram)
}

impl ReferenceParser {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn need(&self) -> Result<u8, Error> {
        self.peek().ok_or((self.line, CUT_OFF))
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, Error> {
        Err((self.line, reason))
    }

    fn blanks(&mut self) {
        while self.peek() == Some(b' ') || self.peek() == Some(b'\t') {
            self.at += 1;
        }
    }

    fn comment(&mut self) -> Result<(), Error> {
        self.at += 1;
        self.blanks();
        let keyword = self.word()?;
        if self.need()? == b'\n' {
            self.at += 1;
            return Ok(());
        }
        if keyword != b"HELP" && keyword != b"TYPE" {
            self.line_rest()?;
            return Ok(());
        }
        self.blanks();
        let name = self.name(true)?;
        match self.need()? {
            b'\n' => {
                self.at += 1;
                return Ok(());
            }
            b' ' | b'\t' => {}
            _ => return self.fail("invalid metric name in comment"),
        }
        let family = self.family(&name)?.0;
        self.blanks();
        if self.need()? == b'\n' {
            self.at += 1;
            return Ok(());
        }
        if keyword == b"HELP" {
            if self.families[family].help.is_some() {
                return self.fail("second HELP line for metric name");
            }
            let mut help = Vec::new();
            loop {
                match self.need()? {
                    b'\n' => break,
                    b'\\' => {
                        self.at += 1;
                        help.push(self.escaped()?);
                    }
                    byte => help.push(byte),
                }
                self.at += 1;
            }
            self.at += 1;
            let help = String::from_utf8_lossy(&help).into_owned();
            if self.lengths.check_text("", help.len()).is_err() {
                return self.fail("HELP longer than");
            }
            self.families[family].help = Some(help);
            return Ok(());
        }
        if self.families[family].kind.is_some() {
            return self.fail("second TYPE line for metric name");
        }
        let word = self.line_rest()?;
        let kind = match String::from_utf8_lossy(&word).to_ascii_lowercase().as_str() {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "untyped" => MetricType::Untyped,
            "summary" => MetricType::Summary,
            "histogram" => MetricType::Histogram,
            "gaugehistogram" | "gauge_histogram" => MetricType::GaugeHistogram,
            _ => return self.fail("unknown metric type"),
        };
        self.families[family].kind = Some(kind);
        Ok(())
    }

    /// Consumes the bytes up to a blank or LF.
    fn word(&mut self) -> Result<Vec<u8>, Error> {
        let mut word = Vec::new();
        while !b" \t\n".contains(&self.need()?) {
            word.push(self.need()?);
            self.at += 1;
        }
        Ok(word)
    }

    /// Consumes the line up to and including its LF. Returns it without backslashes.
    fn line_rest(&mut self) -> Result<Vec<u8>, Error> {
        let mut rest = Vec::new();
        while self.need()? != b'\n' {
            if self.need()? != b'\\' {
                rest.push(self.need()?);
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(rest)
    }

    fn escaped(&self) -> Result<u8, Error> {
        match self.need()? {
            b'\\' => Ok(b'\\'),
            b'"' => Ok(b'"'),
            b'n' => Ok(b'\n'),
            _ => self.fail("invalid escape sequence '\\"),
        }
    }

    fn quoted(&mut self, into: &mut Vec<u8>, unescaped: &'static str) -> Result<(), Error> {
        self.at += 1;
        loop {
            match self.need()? {
                b'"' => break,
                b'\n' => return self.fail(unescaped),
                b'\\' => {
                    self.at += 1;
                    into.push(self.escaped()?);
                }
                byte => into.push(byte),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn name(&mut self, of_metric: bool) -> Result<Vec<u8>, Error> {
        let mut name = Vec::new();
        while let Some(byte) = self.peek() {
            if byte == b'"' {
                self.quoted(&mut name, if of_metric { "metric name \"" } else { "label name \"" })?;
                break;
            }
            let fits = byte.is_ascii_alphabetic()
                || byte == b'_'
                || (byte == b':' && of_metric)
                || (byte.is_ascii_digit() && !name.is_empty());
            if !fits {
                break;
            }
            name.push(byte);
            self.at += 1;
        }
        self.need()?;
        if self.lengths.check_name("", name.len()).is_err() {
            return self.fail(if of_metric { "metric name longer than" } else { "label name longer than" });
        }
        Ok(name)
    }

    fn checked_name(&self, name: &[u8], of_metric: bool) -> Option<String> {
        let name = String::from_utf8(name.to_vec()).ok()?;
        let mut fits = !name.is_empty();
        if !self.utf8_names {
            for (place, letter) in name.chars().enumerate() {
                fits &= matches!(letter, 'a'..='z' | 'A'..='Z' | '_')
                    || (letter == ':' && of_metric)
                    || (letter.is_ascii_digit() && place > 0);
            }
        }
        fits.then_some(name)
    }

    /// The family to which a name refers, and the suffix by which it does.
    fn family(&mut self, name: &[u8]) -> Result<(usize, &'static str), Error> {
        let Some(name) = self.checked_name(name, true) else {
            return self.fail("invalid metric name \"");
        };
        if let Some(family) = self.families.iter().position(|family| family.name == name) {
            return Ok((family, ""));
        }
        for suffix in ["_bucket", "_sum", "_count"] {
            let Some(base) = name.strip_suffix(suffix) else { continue };
            if let Some(family) = self.families.iter().position(|family| family.name == base) {
                let kind = self.families[family].kind;
                if is_histogram(kind) || (kind == Some(MetricType::Summary) && suffix != "_bucket") {
                    return Ok((family, suffix));
                }
            }
        }
        self.families.push(Family { name, help: None, kind: None, metrics: Vec::new() });
        Ok((self.families.len() - 1, ""))
    }

    fn sample(&mut self) -> Result<(), Error> {
        let mut family = None;
        if self.peek() != Some(b'{') {
            let name = self.name(true)?;
            if name.is_empty() {
                return self.fail("invalid metric name");
            }
            family = Some(self.family(&name)?);
            self.blanks();
        }
        let mut labels = Vec::new();
        let mut rank = f64::NAN;
        if self.peek() == Some(b'{') {
            self.at += 1;
            family = Some(self.labels(family, &mut labels, &mut rank)?);
            self.blanks();
        }
        let (family, suffix) = family.expect("a name or braces");
        let word = self.word()?;
        let Some(value) = float(&word) else {
            return self.fail("expected float as value, got \"");
        };
        let metric = self.add(family, suffix, labels, rank, value)?;
        if self.need()? != b'\n' {
            self.blanks();
            let word = String::from_utf8_lossy(&self.word()?).into_owned();
            let Ok(timestamp) = word.parse::<i64>() else {
                return self.fail("expected integer as timestamp, got \"");
            };
            self.families[family].metrics[metric].timestamp = Some(timestamp);
            if !self.line_rest()?.is_empty() {
                return self.fail("spurious string after timestamp: \"");
            }
            return Ok(());
        }
        self.at += 1;
        Ok(())
    }

    fn labels(
        &mut self,
        outer: Option<(usize, &'static str)>,
        labels: &mut Vec<(String, String)>,
        rank: &mut f64,
    ) -> Result<(usize, &'static str), Error> {
        let mut family = outer;
        loop {
            self.blanks();
            if self.need()? == b'}' {
                self.at += 1;
                break;
            }
            let name = self.name(false)?;
            if name.is_empty() {
                return self.fail("invalid label name for metric \"");
            }
            self.blanks();
            let next = self.need()?;
            if next == b'=' {
                self.at += 1;
                self.label(&name, family, labels, rank)?;
            } else if outer.is_some() {
                return self.fail("expected '=' after label name, found '");
            } else if family.is_some() {
                return self.fail("multiple metric names for metric \"");
            } else if next != b',' && next != b'}' {
                return self.fail("unexpected end of metric name '");
            } else {
                let found = self.family(&name)?;
                family = Some(found);
                // A label before the name may be the special one, which is not a label of the metric.
                let special = self.special(found.0);
                if let Some(place) = labels.iter().position(|(name, _)| Some(name.as_str()) == special) {
                    let (_, value) = labels.remove(place);
                    *rank = self.rank(&value, special)?;
                }
            }
            self.at += 1;
            if self.body[self.at - 1] == b'}' {
                break;
            }
        }
        match family {
            Some(family) => Ok(family),
            None => self.fail("invalid metric name"),
        }
    }

    fn special(&self, family: usize) -> Option<&'static str> {
        let kind = self.families[family].kind;
        if is_histogram(kind) {
            return Some("le");
        }
        (kind == Some(MetricType::Summary)).then_some("quantile")
    }

    fn rank(&self, value: &str, special: Option<&str>) -> Result<f64, Error> {
        match float(value.as_bytes()) {
            Some(rank) => Ok(rank),
            None if special == Some("le") => self.fail("expected float as value for 'le' label, got \""),
            None => self.fail("expected float as value for 'quantile' label, got \""),
        }
    }

    /// A label after its `=`, up to the comma or brace.
    fn label(
        &mut self,
        name: &[u8],
        family: Option<(usize, &'static str)>,
        labels: &mut Vec<(String, String)>,
        rank: &mut f64,
    ) -> Result<(), Error> {
        if name == b"__name__" {
            return self.fail("label name \"__name__\" is reserved");
        }
        let Some(name) = self.checked_name(name, false) else {
            return self.fail("invalid label name \"");
        };
        let special = family.and_then(|(family, _)| self.special(family));
        let is_special = special == Some(name.as_str());
        if !is_special && labels.iter().any(|(other, _)| *other == name) {
            return self.fail("duplicate label names for metric \"");
        }
        self.blanks();
        if self.need()? != b'"' {
            return self.fail("expected '\"' at start of label value, found '");
        }
        let mut value = Vec::new();
        self.quoted(&mut value, "label value \"")?;
        let Ok(value) = String::from_utf8(value) else {
            return self.fail("invalid label value \"");
        };
        if self.lengths.check_text("", value.len()).is_err() {
            return self.fail("label value longer than");
        }
        if is_special {
            *rank = self.rank(&value, special)?;
        } else {
            labels.push((name, value));
        }
        self.blanks();
        match self.need()? {
            b',' | b'}' => Ok(()),
            _ => self.fail("unexpected end of label value \""),
        }
    }

    fn add(
        &mut self,
        family: usize,
        suffix: &str,
        labels: Vec<(String, String)>,
        rank: f64,
        value: f64,
    ) -> Result<usize, Error> {
        let line = self.line;
        let family = &mut self.families[family];
        let kind = *family.kind.get_or_insert(MetricType::Untyped);
        if kind != MetricType::Summary && !is_histogram(Some(kind)) {
            family.metrics.push(Metric { labels, single: Some(bits(value)), ..Metric::default() });
            return Ok(family.metrics.len() - 1);
        }
        let sorted = |labels: &[(String, String)]| {
            let mut labels = labels.to_vec();
            labels.sort();
            labels
        };
        let found = family.metrics.iter().position(|metric| sorted(&metric.labels) == sorted(&labels));
        let place = found.unwrap_or(family.metrics.len());
        if found.is_none() {
            // Zero has the bits 0, as a float and as an integer.
            family.metrics.push(Metric { labels, count: Some(0), sum: Some(0), ..Metric::default() });
        }
        let metric = &mut family.metrics[place];
        let positive_zero = if value == 0.0 { 0.0 } else { value };
        match (suffix, is_histogram(Some(kind))) {
            ("_count", true) if value < 0.0 => return Err((line, "negative count for histogram \"")),
            ("_count", true) => metric.count = Some(bits(positive_zero)),
            ("_count", false) => metric.count = Some(value as u64),
            ("_sum", _) => metric.sum = Some(bits(value)),
            _ if rank.is_nan() => {}
            (_, true) if value < 0.0 => return Err((line, "negative bucket population for histogram \"")),
            (_, true) => metric.points.push((bits(rank), bits(positive_zero))),
            (_, false) => metric.points.push((bits(rank), bits(value))),
        }
        Ok(place)
    }
}

fn float(text: &[u8]) -> Option<f64> {
    let text = String::from_utf8(text.to_vec()).ok()?.to_ascii_lowercase();
    if ["inf", "+inf", "infinity", "+infinity"].contains(&text.as_str()) {
        return Some(f64::INFINITY);
    }
    if ["-inf", "-infinity"].contains(&text.as_str()) {
        return Some(f64::NEG_INFINITY);
    }
    if text == "nan" {
        return Some(f64::NAN);
    }
    if !text.chars().all(|letter| letter.is_ascii_digit() || "+-.e".contains(letter)) {
        return None;
    }
    text.parse().ok().filter(|float: &f64| float.is_finite())
}
