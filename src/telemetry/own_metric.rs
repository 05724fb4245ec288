//! The declaration of a metric family of the gateway's own.
//!
//! Each module declares the families that it records, in a `METRICS` list; `server` joins the lists. A family that is not in a
//! list is not recorded. Names, labels and help of `pushgateway_*`, `process_*` and the push times are those of the official
//! program, because dashboards and alerts depend on them.

/// A metric family of the gateway's own, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnMetric {
    /// The name of the family.
    pub name: &'static str,
    /// The type of the family.
    pub kind: OwnKind,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The HELP text: one line that ends with a full stop.
    pub help: &'static str,
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKind {
    /// A value that only grows; the name ends in `_total`.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Quantiles, sum and count.
    Summary,
}

impl OwnKind {
    /// The word in a TYPE line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

impl OwnMetric {
    /// A counter without labels.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: OwnKind::Counter, labels: &[], help }
    }

    /// A gauge without labels.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: OwnKind::Gauge, labels: &[], help }
    }

    /// A summary without labels.
    pub const fn summary(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: OwnKind::Summary, labels: &[], help }
    }

    /// The same family with labels.
    pub const fn with_labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// The step in which the values of a summary are recorded: nanoseconds if the name ends in `_seconds`, otherwise 1.
    pub(super) fn resolution(&self) -> f64 {
        if self.name.ends_with("_seconds") { 1e-9 } else { 1.0 }
    }
}
