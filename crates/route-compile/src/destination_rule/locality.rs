//! Load balancing by locality.

use kube_types::istio::{LocalityDistribution, LocalityLoadBalancer};
use route::Origin;
use route::traffic::{Distribution, LocalityBalancing, LocalityPattern, RegionFailover};

use crate::finding::{Findings, Reason};

/// Compiles a setting. One that is there replaces the preferences of the service, whatever it says.
pub(super) fn compile(
    setting: &LocalityLoadBalancer,
    has_outliers: bool,
    at: &Origin,
    findings: &mut Findings,
) -> LocalityBalancing {
    let at = at.at(format!("{}.localityLbSetting", at.field));
    if setting.enabled == Some(false) {
        return LocalityBalancing::Disabled;
    }
    if !setting.distribute.is_empty() {
        for (field, is_there) in
            [("failover", !setting.failover.is_empty()), ("failoverPriority", !setting.failover_priority.is_empty())]
        {
            if is_there {
                findings.add(Reason::Ignored, &at, field, "distribute is there too, and is used");
            }
        }
        let entries = setting.distribute.iter().enumerate();
        return LocalityBalancing::Distribute(
            entries.filter_map(|(index, entry)| distribution(entry, index, &at, findings)).collect(),
        );
    }
    if !has_outliers {
        let message = "failover needs outlierDetection in the same policy: all localities are alike";
        findings.add(Reason::Ignored, &at, "", message);
        return LocalityBalancing::Disabled;
    }
    let mut labels = Vec::new();
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if label.is_empty() || label.starts_with('=') {
            let field = format!("failoverPriority[{index}]");
            findings.add(Reason::Invalid, &at, &field, "expected `label` or `label=value`: the entry has no effect");
        } else {
            labels.push(label.clone());
        }
    }
    let mut regions = Vec::new();
    for (index, of) in setting.failover.iter().enumerate() {
        let is_region = |name: &str| !name.is_empty() && !name.contains(['/', '*']);
        if !is_region(&of.from) || !is_region(&of.to) || of.from == of.to {
            let field = format!("failover[{index}]");
            findings.add(Reason::Invalid, &at, &field, "expected two different regions: the entry has no effect");
        } else {
            regions.push(RegionFailover { from: of.from.clone(), to: of.to.clone() });
        }
    }
    LocalityBalancing::Failover { labels, regions }
}

fn distribution(
    entry: &LocalityDistribution,
    index: usize,
    at: &Origin,
    findings: &mut Findings,
) -> Option<Distribution> {
    let at = at.at(format!("{}.distribute[{index}]", at.field));
    let mut pattern = |text: &str, field: &str, instead: &str| {
        let pattern = LocalityPattern::new(text);
        if pattern.is_none() {
            let message =
                format!("invalid locality {text:?}, expected region/zone/subzone with `*` at the end: {instead}");
            findings.add(Reason::Invalid, &at, field, message);
        }
        pattern
    };
    let from = pattern(&entry.from, "from", "the entry has no effect")?;
    let mut to = Vec::new();
    for (text, weight) in &entry.to {
        let Some(pattern) = pattern(text, "to", "it gets nothing") else { continue };
        to.push((pattern, *weight));
    }
    let total: u64 = to.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total != 100 {
        let message = format!("weights add up to {total} instead of 100: their proportion counts");
        findings.add(Reason::Invalid, &at, "to", message);
    }
    to.retain(|(_, weight)| *weight > 0);
    if to.is_empty() {
        findings.add(Reason::Invalid, &at, "to", "no locality has a weight: the entry has no effect");
        return None;
    }
    to.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.specificity()));
    Some(Distribution { from, to })
}
