//! VirtualServices to routes: which of them are for a service, in which order, and with which matches.

mod action;
mod delegate;
mod matches;

use std::sync::Arc;

use kube_types::istio::{HttpMatchRequest, HttpRoute, VirtualService};
use route::{Conditions, Origin, Route, Rule};

use crate::finding::{Findings, Reason};
use crate::names::{covers, full_host, is_exported};
use crate::world::{Place, World, by_age, origin};

const KIND: &str = "VirtualService";

/// Gateway that stands for all waypoints.
const MESH: &str = "mesh";

/// Rule of an object, with the field of each of its matches.
#[derive(Clone, Debug)]
pub(crate) struct SourceRule {
    pub(crate) origin: Origin,
    pub(crate) match_origins: Vec<Origin>,
    pub(crate) rule: HttpRoute,
}

pub(crate) fn rules_of(of: &VirtualService) -> Vec<SourceRule> {
    let object = origin(KIND, &of.metadata);
    let rule = |(index, rule): (usize, &HttpRoute)| {
        let origin = object.at(format!("spec.http[{index}]"));
        let field = |at: usize| object.at(format!("{}.match[{at}]", origin.field));
        SourceRule { match_origins: (0..rule.r#match.len()).map(field).collect(), rule: rule.clone(), origin }
    };
    of.spec.http.iter().enumerate().map(rule).collect()
}

/// VirtualServices for a service, the oldest first: of its namespace or of the waypoint's, exported to the latter.
pub(crate) fn selected<'a>(world: &'a World, place: Place<'_>) -> Vec<&'a VirtualService> {
    let mut sorted = by_age(&world.virtual_services, |of| &of.metadata);
    sorted.retain(|of| {
        let namespace = of.metadata.namespace.as_str();
        let host = |host: &String| covers(&full_host(host, namespace, &world.cluster_domain), place.host);
        (namespace == place.service.namespace || namespace == place.waypoint)
            && is_exported(&of.spec.export_to, namespace, place.waypoint)
            && of.spec.hosts.iter().any(host)
            && has_mesh(&of.spec.gateways)
    });
    sorted
}

fn has_mesh(gateways: &[String]) -> bool {
    gateways.is_empty() || gateways.iter().any(|gateway| gateway == MESH)
}

/// Routes of VirtualServices in their order. `None` if they have no HTTP rule: the service then has its default route.
pub(crate) fn routes(
    world: &World,
    place: Place<'_>,
    selected: &[&VirtualService],
    findings: &mut Findings,
) -> Option<Vec<Route>> {
    let mut routes: Vec<Route> = Vec::new();
    let mut has_rules = false;
    for of in selected {
        for (is_there, field) in [(!of.spec.tcp.is_empty(), "spec.tcp"), (!of.spec.tls.is_empty(), "spec.tls")] {
            if is_there {
                let message = "only HTTP rules are supported: connections go to the endpoints of the service";
                findings.add(Reason::Unsupported, &origin(KIND, &of.metadata), field, message);
            }
        }
        for root in rules_of(of) {
            has_rules = true;
            for rule in delegate::expand(world, &of.metadata.namespace, &root, findings) {
                if let Some(above) = routes.iter().find(|route| route.conditions == Conditions::default()) {
                    let message = format!("{} takes every request before: the rule has no effect", above.origin);
                    findings.add(Reason::Shadowed, &rule.origin, "", message);
                } else {
                    routes.extend(routes_of_rule(world, place, &rule, findings));
                }
            }
        }
    }
    has_rules.then_some(routes)
}

/// A route for each match of a rule that is for the port and for waypoints.
fn routes_of_rule(world: &World, place: Place<'_>, rule: &SourceRule, findings: &mut Findings) -> Vec<Route> {
    let everything = HttpMatchRequest::default();
    let mut matches: Vec<(&HttpMatchRequest, &Origin)> = rule.rule.r#match.iter().zip(&rule.match_origins).collect();
    if rule.rule.r#match.is_empty() {
        matches.push((&everything, &rule.origin));
    }
    matches.retain(|(of, _)| of.port.is_none_or(|port| port == place.port) && has_mesh(&of.gateways));
    if matches.is_empty() {
        return Vec::new();
    }
    let compiled: Arc<Rule> = Arc::new(action::rule(world, place, rule, findings));
    let route = |(of, at): (&HttpMatchRequest, &Origin)| {
        let conditions = matches::conditions(of, at, findings).ok()?;
        let name = if of.name.is_empty() { compiled.name.clone() } else { format!("{}.{}", compiled.name, of.name) };
        Some(Route { origin: at.clone(), name, conditions, rule: Arc::clone(&compiled) })
    };
    matches.into_iter().filter_map(route).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
