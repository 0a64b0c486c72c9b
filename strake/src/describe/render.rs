//! Descriptions as text.

use std::time::SystemTime;

use contract::admin::control::Finding;

use super::{
    asked::{PolicyView, PortView},
    pod::{CertificateView, PodView},
    service::{EndpointView, ServiceView},
};
use crate::{check::finding_text, times};

/// Callers that a line names at most.
const NAMED: usize = 12;

pub(super) fn pod_text(view: &PodView) -> String {
    let row = &view.pod;
    let ips: Vec<_> = row.ips.iter().map(ToString::to_string).collect();
    let holding = row.checks.iter().filter(|check| check.ok).count();
    let reason = if row.reason.is_empty() { String::new() } else { format!(": {}", row.reason) };
    let mut text = line("pod", &format!("{}/{} on {}", row.namespace, row.name, row.node));
    text += &line("addresses", &ips.join(", "));
    text += &line("mesh", &format!("{}{reason}; {holding} of {} checks hold", row.state, row.checks.len()));
    if let Some(identity) = &view.identity {
        text += &line("identity", identity);
    }
    if let Some(CertificateView { state, expires }) = &view.certificate {
        let left = times::parse(expires).map(|end| format!(" (in {})", times::until(end, SystemTime::now())));
        text += &line("certificate", &format!("{state}, expires {expires}{}", left.unwrap_or_default()));
    }
    text += &line("services", &or_none(&view.services));
    if let Some(waypoint) = &view.waypoint {
        text += &line("waypoint", waypoint);
    }
    text += &line("connections", &or_none(&view.connections));
    text + &rest(&view.policies, &view.ports, &view.findings, &view.notes)
}

pub(super) fn service_text(view: &ServiceView) -> String {
    let mut text = line("service", &format!("{} ({})", view.service, view.hostname));
    text += &line("addresses", &or_none(&view.addresses));
    if let Some(waypoint) = &view.waypoint {
        let fate = match waypoint.contains(graph::UNAVAILABLE_WAYPOINT) {
            true => "it cannot take connections, and they fail",
            false => "it decides before the policies below",
        };
        text += &line("waypoint", &format!("{waypoint}: {fate}"));
    }
    let endpoints = view.endpoints.iter().map(|endpoint| {
        let EndpointView { workload, node, protocol, status } = endpoint;
        format!("{workload} on {node} by {protocol}, {status}")
    });
    text += &line("endpoints", &or_none(&endpoints.collect::<Vec<_>>()));
    text + &rest(&view.policies, &view.ports, &view.findings, &view.notes)
}

fn rest(policies: &[PolicyView], ports: &[PortView], findings: &[Finding], notes: &[String]) -> String {
    let policy = |policy: &PolicyView| {
        let PolicyView { policy, action, dry_run, unenforced } = policy;
        let dry_run = if *dry_run { ", dry run" } else { "" };
        let unenforced = unenforced.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        format!("{action} {policy}{dry_run}{unenforced}")
    };
    let mut text = line("policies", &or_none(&policies.iter().map(policy).collect::<Vec<_>>()));
    for PortView { port, allowed, refused, unknown } in ports {
        text.push_str(&format!("callers of port {port}\n"));
        for (word, side) in [("allowed", allowed), ("refused", refused)] {
            for (reason, names) in side {
                let names = if names.is_empty() { String::new() } else { format!("{} ", named(names)) };
                text.push_str(&format!("  {word}  {names}({reason})\n"));
            }
        }
        for reason in unknown {
            text.push_str(&format!("  unknown  {reason}\n"));
        }
    }
    for finding in findings {
        text.push_str(&format!("{}\n", finding_text(finding)));
    }
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<12} {value}\n")
}

/// One to a line, below each other.
fn or_none(values: &[String]) -> String {
    if values.is_empty() { "none".to_owned() } else { values.join(&format!("\n{:<13}", "")) }
}

fn named(names: &[String]) -> String {
    let some = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
