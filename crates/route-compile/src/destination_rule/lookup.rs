//! The DestinationRules that hold for a service on a waypoint.

use kube_types::istio::DestinationRule;

use super::KIND;
use crate::finding::{Findings, Reason};
use crate::names::{covers, full_host, is_exported, specificity};
use crate::world::{Service, World, by_age, origin};

/// Rules of the first namespace that has any for the host: the waypoint's, the service's, the root namespace. Of these, those
/// with the most special host, the oldest first.
pub(super) fn lookup<'a>(
    world: &'a World,
    waypoint: &str,
    host: &str,
    service: &Service,
    findings: &mut Findings,
) -> Vec<&'a DestinationRule> {
    let full = |rule: &DestinationRule| full_host(&rule.spec.host, &rule.metadata.namespace, &world.cluster_domain);
    let mut candidates = by_age(&world.destination_rules, |rule| &rule.metadata);
    candidates.retain(|rule| {
        let is_exported = is_exported(&rule.spec.export_to, &rule.metadata.namespace, waypoint);
        covers(&full(rule), host) && is_exported
    });
    candidates.retain(|rule| {
        if rule.spec.workload_selector.is_some() {
            let message = "rules for single clients are not supported by waypoints: the rule has no effect";
            findings.add(Reason::Unsupported, &origin(KIND, &rule.metadata), "spec.workloadSelector", message);
        }
        rule.spec.workload_selector.is_none()
    });
    // Rules of the root namespace are the last resort, unless they are for that namespace alone.
    let is_own = |rule: &DestinationRule| {
        let of_root = waypoint == world.root_namespace;
        rule.metadata.namespace == waypoint && (!of_root || rule.spec.export_to.iter().any(|entry| entry == "."))
    };
    let of_service = |rule: &DestinationRule| rule.metadata.namespace == service.namespace;
    let of_root = |rule: &DestinationRule| rule.metadata.namespace == world.root_namespace;
    let steps: [&dyn Fn(&DestinationRule) -> bool; 3] = [&is_own, &of_service, &of_root];
    let Some(step) = steps.into_iter().find(|step| candidates.iter().any(|rule| step(rule))) else {
        return Vec::new();
    };
    let most = candidates.iter().filter(|rule| step(rule)).map(|rule| specificity(&full(rule))).max();
    let (used, hidden): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|rule| step(rule) && Some(specificity(&full(rule))) == most);
    let Some(first) = used.first() else { return used };
    let concerned = |rule: &&DestinationRule| is_own(rule) || of_service(rule) || of_root(rule);
    for rule in hidden.into_iter().filter(concerned) {
        let message = format!("{} is used for {host} instead", origin(KIND, &first.metadata));
        findings.add(Reason::Shadowed, &origin(KIND, &rule.metadata), "spec.host", message);
    }
    used
}
