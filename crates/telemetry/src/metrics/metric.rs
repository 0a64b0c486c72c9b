//! Description of one metric: name, kind, help, labels, and the programs that export it.

/// Kind of a metric, with the upper bounds of a histogram's buckets in the unit of its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Grows and shrinks.
    Gauge,
    /// Observations counted in buckets, which can be added up over nodes, unlike quantiles.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As OpenMetrics names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A program that exports metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `strake-agent`.
    Agent,
    /// `strake-control`.
    Control,
    /// `waypoint`.
    Waypoint,
    /// `ztunnel`.
    Ztunnel,
}

impl Program {
    /// Name of the executable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "strake-agent",
            Self::Control => "strake-control",
            Self::Waypoint => "waypoint",
            Self::Ztunnel => "ztunnel",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Name as it is scraped.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Programs that export it.
    pub programs: &'static [Program],
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// The text after `# HELP`.
    pub help: &'static str,
}

pub(super) type Programs = &'static [Program];
pub(super) type Labels = &'static [&'static str];

pub(super) const fn counter(name: &'static str, programs: Programs, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, programs, labels, help }
}

pub(super) const fn gauge(name: &'static str, programs: Programs, labels: Labels, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, programs, labels, help }
}

pub(super) const fn histogram(
    name: &'static str,
    programs: Programs,
    labels: Labels,
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), programs, labels, help }
}
