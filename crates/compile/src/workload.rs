//! A pod to its discovery resource.

use std::net::IpAddr;

use contract::labels::{APP_NAME_LABEL, APP_VERSION_LABEL, CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL};
use graph::{Locality, Mesh, Workload, enrolment};
use proto::workload as wire;
use proto::workload::{NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType};

use crate::{owner, service};

/// Trust domain for which the wire has the empty text.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

pub(crate) fn convert(mesh: &Mesh, workload: &Workload) -> wire::Workload {
    let pod = &*workload.pod;
    let meta = &pod.metadata;
    let workload_name = owner::workload_name(pod);
    // A pod that is being deleted may answer for a while, but new connections would end with it.
    let is_healthy = pod.is_ready() && meta.deletion_timestamp.is_none();
    let label = |names: &[&str]| {
        names.iter().filter_map(|name| meta.labels.get(*name)).find(|value| !value.is_empty()).cloned()
    };
    // HBONE follows from the agent's annotation, never from a label: peers send to a tunnel only where the kernel has been
    // read back.
    let tunnel = if enrolment::is_enrolled(pod) { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    let network = if pod.spec.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let services = workload.services.iter().map(|service| {
        let meta = &service.metadata;
        (mesh.service_key(&meta.namespace, &meta.name), service::pod_ports(service, pod))
    });
    wire::Workload {
        uid: mesh.pod_uid(&meta.namespace, &meta.name),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        addresses: pod.addresses().filter_map(parse_address).collect(),
        tunnel_protocol: tunnel.into(),
        trust_domain: trust_domain(mesh),
        service_account: pod.service_account().to_owned(),
        node: pod.spec.node_name.clone().unwrap_or_default(),
        canonical_name: label(&[CANONICAL_NAME_LABEL, APP_NAME_LABEL, "app"]).unwrap_or_else(|| workload_name.clone()),
        canonical_revision: label(&[CANONICAL_REVISION_LABEL, APP_VERSION_LABEL, "version"])
            .unwrap_or_else(|| "latest".to_owned()),
        workload_type: WorkloadType::Pod.into(),
        workload_name,
        services: services.collect(),
        authorization_policies: workload.policies.clone(),
        status: status(is_healthy).into(),
        cluster_id: mesh.cluster_id.clone(),
        locality: workload.locality.as_ref().map(locality),
        network_mode: network.into(),
        ..wire::Workload::default()
    }
}

fn trust_domain(mesh: &Mesh) -> String {
    if mesh.trust_domain == DEFAULT_TRUST_DOMAIN { String::new() } else { mesh.trust_domain.clone() }
}

fn locality(locality: &Locality) -> wire::Locality {
    let Locality { region, zone, subzone } = locality.clone();
    wire::Locality { region, zone, subzone }
}

pub(crate) const fn status(is_healthy: bool) -> WorkloadStatus {
    if is_healthy { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy }
}

/// An address as bytes in network order; one that is mapped into IPv6 is IPv4. The graph reports invalid ones.
pub(crate) fn parse_address(text: &str) -> Option<Vec<u8>> {
    Some(match contract::address::parse_address(text)? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}
