//! `metrics.md`: every metric of every program.

use contract::ports;
use telemetry::metrics::{CATALOGUE, Kind, Metric, Program};

use crate::page;

const INTRODUCTION: &str = "\
# Metrics

Every metric that Strake's programs export, generated from the catalogue in `crates/telemetry`. Each program serves them under `/metrics` and
`/stats/prometheus`: Prometheus' text format 0.0.4, or OpenMetrics for a client that accepts it. The unit is the end of the name. Counters and histograms that
did not change for an hour disappear until they count again.
";

fn labels(metric: &Metric) -> String {
    let quoted: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    quoted.join(", ")
}

fn kind(metric: &Metric) -> String {
    match metric.kind {
        Kind::Counter | Kind::Gauge => metric.kind.name().to_owned(),
        Kind::Histogram(buckets) => {
            let bounds: Vec<String> = buckets.iter().map(ToString::to_string).collect();
            format!("histogram, buckets {}", bounds.join(" "))
        }
    }
}

/// Port on which a program exports its metrics by default.
const fn port(program: Program) -> u16 {
    match program {
        Program::Waypoint | Program::Ztunnel => ports::PROXY_METRICS,
        Program::Agent | Program::Control => ports::MONITORING,
    }
}

fn section(program: Program) -> String {
    let mut text = format!("\n## `{}`\n\nPort {}, unless a setting changes it.\n\n", program.name(), port(program))
        + &page::head(&["Name", "Kind", "Labels", "Meaning"]);
    for metric in CATALOGUE.iter().filter(|metric| metric.programs.contains(&program)) {
        let name = format!("`{}`", metric.name);
        text += &page::row(&[&name, &kind(metric), &labels(metric), metric.help]);
    }
    text
}

#[test]
fn every_metric_is_on_its_page() {
    let sections = [Program::Ztunnel, Program::Waypoint, Program::Agent, Program::Control].map(section);

    page::check("metrics.md", &(INTRODUCTION.to_owned() + &sections.concat()));
}
