//! HTTPRoutes and GRPCRoutes of a Service to routes: which are attached, and in which order a request tries them.

mod backends;
mod filters;
mod grpc;
mod http;
mod precedence;

use std::collections::{BTreeMap, BTreeSet};

use kube_types::ObjectMeta;
use kube_types::gateway::ParentReference;
use route::{Action, LocalAnswer, Route};

use crate::finding::{Findings, Reason};
use crate::world::{Place, World, origin};

/// Routes that are attached to a service port, in order of precedence.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Those of the service's own namespace; `None` if there are none.
    pub(crate) producer: Option<Vec<Route>>,
    /// Those of other namespaces, for clients of these namespaces.
    pub(crate) consumers: BTreeMap<String, Vec<Route>>,
}

pub(crate) fn routes(world: &World, place: Place<'_>, findings: &mut Findings) -> Attached {
    let is_attached = |meta: &ObjectMeta, parents: &[ParentReference]| {
        parents.iter().any(|parent| is_parent(parent, &meta.namespace, place))
    };
    let http: Vec<_> = world.http_routes.iter().filter(|of| is_attached(&of.metadata, &of.spec.parent_refs)).collect();
    let grpc: Vec<_> = world.grpc_routes.iter().filter(|of| is_attached(&of.metadata, &of.spec.parent_refs)).collect();
    let metas = http.iter().map(|of| &of.metadata).chain(grpc.iter().map(|of| &of.metadata));
    let namespaces: BTreeSet<_> = metas.map(|meta| meta.namespace.clone()).collect();
    let mut attached = Attached::default();
    for namespace in namespaces {
        let of_namespace = |meta: &ObjectMeta| meta.namespace == namespace;
        let grpc: Vec<_> = grpc.iter().copied().filter(|of| of_namespace(&of.metadata)).collect();
        let http: Vec<_> = http.iter().copied().filter(|of| of_namespace(&of.metadata)).collect();
        let routes = if grpc.is_empty() {
            http::routes(world, place, &http, findings)
        } else {
            for of in &http {
                let message =
                    format!("GRPCRoutes are attached to port {} of {}: they are used instead", place.port, place.host);
                findings.add(Reason::Shadowed, &origin(http::KIND, &of.metadata), "", message);
            }
            grpc::routes(world, place, &grpc, findings)
        };
        if namespace == place.service.namespace {
            attached.producer = Some(routes);
        } else {
            attached.consumers.insert(namespace, routes);
        }
    }
    attached
}

/// Returns true if a reference of a route in `namespace` names the service, and its port if it names one.
fn is_parent(parent: &ParentReference, namespace: &str, place: Place<'_>) -> bool {
    let is_service = parent.kind.as_deref() == Some("Service") && matches!(parent.group.as_deref(), Some("" | "core"));
    let port = place.service.ports.iter().find(|port| port.number == place.port);
    is_service
        && parent.name == place.service.name
        && parent.namespace.as_deref().unwrap_or(namespace) == place.service.namespace
        && parent.port.is_none_or(|port| port == place.port)
        && parent.section_name.as_ref().is_none_or(|section| port.is_some_and(|port| port.name == *section))
}

/// Action of a rule that cannot be enforced.
fn refused() -> Action {
    Action::Respond(LocalAnswer::new(500, ""))
}

/// Matches of a rule, each with its place; a rule without any matches `everything`.
fn with_origins<'a, M>(matches: &'a [M], everything: &'a M, rule: &route::Origin) -> Vec<(route::Origin, &'a M)> {
    if matches.is_empty() {
        return vec![(rule.clone(), everything)];
    }
    (0..).map(|n| rule.at(format!("{}.matches[{n}]", rule.field))).zip(matches).collect()
}

fn hostnames(names: &[String], at: &route::Origin, findings: &mut Findings) {
    if !names.is_empty() {
        let message = "host names have no effect on a route of a Service: every request to the Service is matched";
        findings.add(Reason::Ignored, at, "spec.hostnames", message);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
