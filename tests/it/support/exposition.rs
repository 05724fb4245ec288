//! A strict parser of text expositions: anything that a scraper could reject is an error.

use std::collections::{BTreeMap, HashSet};

/// An exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposition {
    /// Sorted by name, as in the text.
    pub families: Vec<Family>,
}

/// A metric family: a TYPE line and the samples after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    /// The type, as in the TYPE line.
    pub kind: String,
    /// The unescaped text of the HELP line.
    pub help: Option<String>,
    /// Never empty.
    pub samples: Vec<Sample>,
}

/// A sample line.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name of the family, possibly with a suffix such as `_sum`.
    pub name: String,
    /// Label names and unescaped values.
    pub labels: BTreeMap<String, String>,
    /// The value as printed.
    pub value: String,
}

impl Sample {
    /// The value of a label; empty if the label is absent.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value as a number.
    pub fn number(&self) -> f64 {
        match self.value.as_str() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            text => text.parse().expect("the parser has checked it"),
        }
    }
}

impl Exposition {
    /// Parses a text exposition. Errors name the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let line = line.strip_suffix('\n').ok_or("the last line has no line feed")?;
            reader.line(line).map_err(|problem| format!("line {}: {problem}: {line}", index + 1))?;
        }
        reader.finish_family()?;
        Ok(Self { families: reader.families })
    }

    /// The family with this name.
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// The samples with this name.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.families.iter().flat_map(|family| &family.samples).filter(move |sample| sample.name == name)
    }

    /// The printed value of the only sample with this name and at least these labels. Panics if there are several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<&str> {
        let all = self.families.iter().flat_map(|family| &family.samples);
        let mut found = all.filter(|sample| {
            sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value)
        });
        let first = found.next()?;
        assert!(found.next().is_none(), "several samples {name} {labels:?}");
        Some(&first.value)
    }

    /// The exposition without the gateway's own families, whose values change without pushes.
    pub fn pushed(&self) -> Self {
        const OWN: [&str; 4] = ["go_", "process_", "promhttp_", "pushgateway_"];
        let families = self.families.iter().filter(|family| {
            !OWN.iter().any(|prefix| family.name.starts_with(prefix))
                && !family.name.starts_with("sluicegate_")
        });
        Self { families: families.cloned().collect() }
    }
}

#[derive(Default)]
struct Reader {
    families: Vec<Family>,
    /// Name and text of a HELP line whose TYPE line has not come yet.
    help: Option<(String, String)>,
    open: Option<Family>,
    series: HashSet<(String, BTreeMap<String, String>)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            self.finish_family()?;
            let (name, text) = rest.split_once(' ').ok_or("no text")?;
            if self.help.is_some() {
                return Err("two HELP lines in a row".to_owned());
            }
            self.help = Some((name.to_owned(), unescape(text, false)?));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.finish_family()?;
            let (name, kind) = rest.split_once(' ').ok_or("no type")?;
            if !["counter", "gauge", "untyped", "histogram", "summary"].contains(&kind) {
                return Err("unknown type".to_owned());
            }
            if self.families.last().is_some_and(|last| last.name.as_str() >= name) {
                return Err("the family is repeated or out of order".to_owned());
            }
            let help = match self.help.take() {
                Some((of, _)) if of != name => {
                    return Err(format!("the preceding HELP line belongs to {of}"));
                }
                help => help.map(|(_, text)| text),
            };
            let (name, kind) = (name.to_owned(), kind.to_owned());
            self.open = Some(Family { name, kind, help, samples: Vec::new() });
        } else {
            let sample = sample(line)?;
            let family = self.open.as_mut().ok_or("a sample without a family")?;
            if self.help.is_some() {
                return Err("HELP without TYPE".to_owned());
            }
            if !belongs(family, &sample) {
                return Err(format!("the sample does not belong to the family {}", family.name));
            }
            if !self.series.insert((sample.name.clone(), sample.labels.clone())) {
                return Err("the series is repeated".to_owned());
            }
            family.samples.push(sample);
        }
        Ok(())
    }

    fn finish_family(&mut self) -> Result<(), String> {
        if let Some(family) = self.open.take() {
            if family.samples.is_empty() {
                return Err(format!("the family {} has no samples", family.name));
            }
            self.families.push(family);
        }
        Ok(())
    }
}

fn belongs(family: &Family, sample: &Sample) -> bool {
    let Some(suffix) = sample.name.strip_prefix(&family.name) else { return false };
    match family.kind.as_str() {
        "histogram" => match suffix {
            "_bucket" => sample.labels.contains_key("le"),
            _ => suffix == "_sum" || suffix == "_count",
        },
        "summary" => match suffix {
            "" => sample.labels.contains_key("quantile"),
            _ => suffix == "_sum" || suffix == "_count",
        },
        _ => suffix.is_empty(),
    }
}

/// Parses `name{label="value",…} value`. Accepts only the spaces and commas that a gateway writes.
fn sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(name_end);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':') {
        return Err("bad name".to_owned());
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").ok_or("no label value")?;
            if label.is_empty() || !label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(format!("bad label name {label:?}"));
            }
            let end = closing_quote(behind).ok_or("no closing quote")?;
            if labels.insert(label.to_owned(), unescape(&behind[..end], true)?).is_some() {
                return Err(format!("label {label} is repeated"));
            }
            rest = &behind[end + 1..];
            if let Some(behind) = rest.strip_prefix('}') {
                rest = behind;
                break;
            }
            rest = rest.strip_prefix(',').ok_or("no comma between labels")?;
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    if !["NaN", "+Inf", "-Inf"].contains(&value)
        && (value.parse::<f64>().is_err() || !value.contains(|c: char| c.is_ascii_digit()))
    {
        return Err("bad value".to_owned());
    }
    Ok(Sample { name: name.to_owned(), labels, value: value.to_owned() })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closing = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closing
    })
}

fn unescape(text: &str, quotes: bool) -> Result<String, String> {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => return Err(format!("bad escape {other:?}")),
            },
            other => other,
        });
    }
    Ok(plain)
}
