//! A Service to its discovery resource, and the ports of a workload behind it.

use contract::labels::TRAFFIC_DISTRIBUTION_ANNOTATION;
use graph::{Mesh, MeshService, target_port};
use kube_types::ObjectMeta;
use kube_types::core::{IntOrString, Namespace, Pod, Service, ServicePort};
use proto::workload::load_balancing::{HealthPolicy, Mode, Scope};
use proto::workload::{self as wire, LoadBalancing, Port, PortList};

use crate::app_protocol::app_protocol;
use crate::gateway::{self, network_address};

pub(crate) fn convert(mesh: &Mesh, resolved: &MeshService) -> wire::Service {
    let service = &*resolved.service;
    let meta = &service.metadata;
    let addresses = service.spec.addresses().filter_map(contract::address::parse_address);
    let waypoints = &resolved.waypoints;
    wire::Service {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        hostname: mesh.hostname(&meta.namespace, &meta.name),
        addresses: addresses.map(|address| network_address(mesh, address)).collect(),
        ports: service.spec.ports.iter().map(service_port).collect(),
        load_balancing: load_balancing(service, resolved.namespace.as_deref()),
        ip_families: ip_families(&service.spec.ip_families).into(),
        canonical: true,
        waypoint: waypoints.primary.as_ref().map(|primary| gateway::address(mesh, primary)),
        weighted_waypoints: gateway::weighted(mesh, waypoints),
        ingress_use_waypoint: waypoints.ingress,
        ..wire::Service::default()
    }
}

/// A named target port is 0 here: only a pod can tell which number it is.
fn service_port(port: &ServicePort) -> Port {
    Port {
        service_port: port.port.into(),
        target_port: match &port.target_port {
            // As the API server fills it in; manifests from files are not filled in.
            Some(IntOrString::Int(0)) | None => port.port.into(),
            Some(IntOrString::Int(number)) => (*number).into(),
            Some(IntOrString::String(_)) => 0,
        },
        app_protocol: app_protocol(port).into(),
    }
}

fn ip_families(families: &[String]) -> wire::IpFamilies {
    let has = |wanted: &str| families.iter().any(|family| family == wanted);
    match (has("IPv4"), has("IPv6")) {
        (true, true) => wire::IpFamilies::Dual,
        (true, false) => wire::IpFamilies::Ipv4Only,
        (false, true) => wire::IpFamilies::Ipv6Only,
        // Only an API server fills the field in.
        (false, false) => wire::IpFamilies::Automatic,
    }
}

fn load_balancing(service: &Service, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    let (mode, scopes) = preference(service, namespace);
    let health =
        if service.spec.publish_not_ready_addresses { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    // What a proxy does without the field; most Services are shorter without it.
    if mode == Mode::UnspecifiedMode && health == HealthPolicy::OnlyHealthy {
        return None;
    }
    Some(LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}

const ZONE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone];
const NODE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];

fn preference(service: &Service, namespace: Option<&Namespace>) -> (Mode, &'static [Scope]) {
    // A demand and not a preference: without an endpoint on the node there is no connection.
    if service.spec.internal_traffic_policy.as_deref() == Some("Local") {
        return (Mode::Strict, &[Scope::Node]);
    }
    // The field counts first and exactly; then the annotation of the service, even an
    // unknown one; then that of its namespace. Istio decides in this order.
    match service.spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") => return (Mode::Failover, ZONE),
        Some("PreferSameNode") => return (Mode::Failover, NODE),
        Some(_) | None => {}
    }
    annotated_preference(&service.metadata, namespace)
}

/// Preference that an annotation of the object says, or else one of its namespace.
pub(crate) fn annotated_preference(meta: &ObjectMeta, namespace: Option<&Namespace>) -> (Mode, &'static [Scope]) {
    let annotation = meta.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION).or_else(|| {
        namespace.and_then(|namespace| namespace.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION))
    });
    match annotation.map(|value| value.to_ascii_lowercase()).as_deref() {
        Some("preferclose" | "prefersamezone") => (Mode::Failover, ZONE),
        Some("prefersamenode") => (Mode::Failover, NODE),
        Some(_) | None => (Mode::UnspecifiedMode, &[]),
    }
}

/// The ports of a service as a pod serves them: a name is looked up among the pod's TCP ports, and a
/// port whose name it does not have is left out.
pub(crate) fn pod_ports(service: &Service, pod: &Pod) -> PortList {
    let ports = service.spec.ports.iter().filter_map(|port| {
        let target = target_port(port, pod)?;
        Some(Port { service_port: port.port.into(), target_port: target.into(), ..Port::default() })
    });
    PortList { ports: ports.collect() }
}
