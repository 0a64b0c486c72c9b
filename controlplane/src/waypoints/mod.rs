//! Life of waypoints: a Gateway of our class gets the objects that run it, in a cluster, and its status says what became of it.
//! In a directory others make the objects (`lab`), and only the status is written here. Which objects use a waypoint is the
//! graph's affair.

mod classes;
mod cluster;
mod controller;
mod status;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use controller::{Controller, ControllerConfig, Making};
pub(crate) use view::Waypoints;

use kube_cluster::{Owned, Rule, Verb};
use kube_types::Kind;
use waypoint_manifests::PartKind;

/// Kinds whose statuses the controller writes.
pub(crate) const STATUSES: [Kind; 2] = [Kind::GatewayClass, Kind::Gateway];

/// Parts of these statuses that are the controller's.
pub(crate) fn owned() -> Owned {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Owned {
        conditions: texts(&["Accepted", "Programmed"]),
        fields: texts(&["addresses", "listeners"]),
        ..Owned::default()
    }
}

/// RBAC rules of the controller, besides those of reading and of statuses; class-wide defaults are in `namespace`.
pub(crate) fn permissions(namespace: &str) -> Vec<Rule> {
    let rule = |namespace: Option<&str>, group: &str, resource: &str, verbs: &[Verb]| Rule {
        namespace: namespace.map(str::to_owned),
        api_group: group.to_owned(),
        resource: resource.to_owned(),
        names: Vec::new(),
        verbs: verbs.to_vec(),
    };
    let parts = PartKind::ALL.map(|kind| {
        let group = kind.api_version().split_once('/').map_or("", |(group, _)| group);
        // An apply that makes the object takes `create` as well.
        let verbs = [Verb::Get, Verb::List, Verb::Create, Verb::Patch, Verb::Delete];
        rule(None, group, kind.plural(), &verbs)
    });
    let others = [
        rule(None, "gateway.networking.k8s.io", "gatewayclasses", &[Verb::Create]),
        // Overlays that Gateways name.
        rule(None, "", "configmaps", &[Verb::Get]),
        rule(Some(namespace), "", "configmaps", &[Verb::List]),
    ];
    parts.into_iter().chain(others).collect()
}
