//! The description of a pod.

use std::collections::BTreeMap;

use contract::admin::control::Finding;
use serde::Serialize;

use super::asked::{Asked, PolicyView, PortView};
use crate::{
    get::pods::Row,
    mesh::dump::{CertificateState, Connection, Connections, PodState},
};

/// A pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodView {
    pub(super) pod: Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    /// Certificate of the identity in the ztunnel of the pod's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<CertificateView>,
    /// Services with this endpoint, and its ports.
    pub(super) services: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waypoint: Option<String>,
    pub(super) ports: Vec<PortView>,
    pub(super) policies: Vec<PolicyView>,
    pub(super) connections: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
}

/// The certificate of an identity.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CertificateView {
    pub(super) state: String,
    pub(super) expires: String,
}

impl PodView {
    pub(super) fn new(row: Row, asked: &Asked) -> Self {
        let (namespace, name) = (row.namespace.clone(), row.name.clone());
        let workload = asked.world.workload(&namespace, &name);
        let proxy = workload.as_ref().and_then(|workload| asked.world.proxies.get(workload.node.as_str()));
        let identity = workload.as_ref().and_then(|workload| workload.identity()).map(|identity| identity.to_string());
        let certificate = proxy.and_then(|proxy| {
            proxy.dump.certificates.iter().find(|held| Some(&held.identity) == identity.as_ref()).map(certificate)
        });
        let state = proxy.and_then(|proxy| {
            proxy.dump.workload_state.values().find(|pod| pod.info.namespace == namespace && pod.info.name == name)
        });
        let mut ports = BTreeMap::new();
        for membership in workload.iter().flat_map(|workload| workload.services.iter()) {
            for (_, target) in membership.ports.iter() {
                ports.entry(target).or_insert_with(PortView::default);
            }
        }
        if ports.is_empty() {
            // No Service sends to it: any port stands for the policies without ports.
            ports.insert(0, PortView::default());
        }
        if let Some(workload) = &workload {
            for (port, view) in &mut ports {
                let label = if *port == 0 { "any".to_owned() } else { port.to_string() };
                asked.callers(workload, label, *port, view);
            }
        }
        let policies = workload.as_ref().map(|workload| asked.policies_of(workload)).unwrap_or_default();
        let mut objects = vec![format!("Pod {namespace}/{name}"), format!("Namespace {namespace}")];
        objects.extend(policies.iter().map(|policy| format!("AuthorizationPolicy {}", policy.policy)));
        let services = workload.iter().flat_map(|workload| workload.services.iter()).map(|membership| {
            let ports: Vec<_> = membership.ports.iter().map(|(port, target)| format!("{port}:{target}")).collect();
            format!("{} ({})", membership.service, ports.join(", "))
        });
        Self {
            identity,
            certificate,
            services: services.collect(),
            waypoint: workload.as_ref().and_then(|workload| workload.waypoint.as_ref()).map(ToString::to_string),
            ports: if workload.is_some() { ports.into_values().collect() } else { Vec::new() },
            policies,
            connections: state.map(connections).unwrap_or_default(),
            findings: asked.findings(&objects),
            notes: asked.notes.clone(),
            pod: row,
        }
    }
}

fn certificate(held: &CertificateState) -> CertificateView {
    let expires = held.cert_chain.first().map(|own| own.expiration_time.clone()).unwrap_or_default();
    CertificateView { state: held.state.clone(), expires }
}

fn connections(state: &PodState) -> Vec<String> {
    let Connections { inbound, outbound } = &state.connections;
    let count = |direction: &str, all: &[Connection]| {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        all.iter().for_each(|connection| *kinds.entry(&connection.protocol).or_default() += 1);
        kinds.into_iter().map(|(kind, count)| format!("{count} {direction} {kind}")).collect::<Vec<_>>()
    };
    [count("inbound", inbound), count("outbound", outbound)].concat()
}
