//! A pod to its discovery resource.

use std::net::IpAddr;

use graph::{Locality, Mesh, SelectedEntry, Workload, enrolment, entry_port_of_pod};
use kube_types::core::Pod;
use proto::workload as wire;
use proto::workload::{NetworkMode, Port, PortList, TunnelProtocol, WorkloadStatus, WorkloadType};

use crate::entry::service_key;
use crate::{canonical, gateway, owner, service};

/// Trust domain for which the wire has the empty text.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

pub(crate) fn convert(mesh: &Mesh, workload: &Workload) -> wire::Workload {
    let pod = &*workload.pod;
    let meta = &pod.metadata;
    let workload_name = owner::workload_name(pod);
    // A pod that is being deleted may answer for a while, but new connections would end with it.
    let is_healthy = pod.is_ready() && meta.deletion_timestamp.is_none();
    let (canonical_name, canonical_revision) = canonical::names(&meta.labels, &workload_name);
    // HBONE follows from the agent's annotation, never from a label: peers send to a tunnel only where the kernel has been
    // read back.
    let tunnel = if enrolment::is_enrolled(pod) { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    let network = if pod.spec.host_network { NetworkMode::HostNetwork } else { NetworkMode::Standard };
    let services = workload.services.iter().map(|service| {
        let meta = &service.metadata;
        (mesh.service_key(&meta.namespace, &meta.name), service::pod_ports(service, pod))
    });
    let entries = workload.entries.iter().flat_map(|selected| memberships(selected, pod));
    wire::Workload {
        uid: mesh.pod_uid(&meta.namespace, &meta.name),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        addresses: pod.addresses().filter_map(parse_address).collect(),
        network: mesh.network.clone(),
        tunnel_protocol: tunnel.into(),
        trust_domain: trust_domain(mesh),
        service_account: pod.service_account().to_owned(),
        // A pod without a node has no address either, and is not sent.
        node: pod.spec.node_name.clone().unwrap_or_default(),
        canonical_name,
        canonical_revision,
        workload_type: WorkloadType::Pod.into(),
        workload_name,
        services: services.chain(entries).collect(),
        waypoint: workload.waypoint.as_ref().map(|waypoint| gateway::address(mesh, waypoint)),
        authorization_policies: workload.policies.clone(),
        status: status(is_healthy).into(),
        cluster_id: mesh.cluster_id.clone(),
        locality: workload.locality.as_ref().map(locality),
        network_mode: network.into(),
        ..wire::Workload::default()
    }
}

/// The services of a ServiceEntry that selects a pod.
fn memberships<'a>(selected: &'a SelectedEntry, pod: &Pod) -> impl Iterator<Item = (String, PortList)> + use<'a> {
    let ports = selected.entry.spec.ports.iter().map(|port| Port {
        service_port: port.number.into(),
        target_port: entry_port_of_pod(port, pod).into(),
        ..Port::default()
    });
    let (ports, namespace) = (PortList { ports: ports.collect() }, &selected.entry.metadata.namespace);
    selected.hosts.iter().map(move |host| (service_key(namespace, host), ports.clone()))
}

pub(crate) fn trust_domain(mesh: &Mesh) -> String {
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
    contract::address::parse_address(text).map(octets)
}

/// The bytes of an address in network order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
