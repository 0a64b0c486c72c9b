//! Service to its discovery resource, and the ports of a workload behind it.

use std::net::IpAddr;

use contract::labels::TRAFFIC_DISTRIBUTION_ANNOTATION;
use kube_types::ObjectRef;
use kube_types::core::{IntOrString, Namespace, Pod, Service, ServicePort};
use proto::workload::load_balancing::{HealthPolicy, Mode, Scope};
use proto::workload::{self as wire, LoadBalancing, NetworkAddress, Port, PortList};

use crate::app_protocol::app_protocol;
use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;

/// Services that are names for something outside have no place in the mesh.
pub(crate) fn is_sent(service: &Service) -> bool {
    service.spec.r#type.as_deref() != Some("ExternalName")
}

pub(crate) fn convert(
    mesh: &Mesh,
    key: &ObjectRef,
    service: &Service,
    namespace: Option<&Namespace>,
    findings: &mut Vec<Finding>,
) -> wire::Service {
    let meta = &service.metadata;
    let addresses = service.spec.addresses().filter_map(|text| {
        let parsed = parse_address(text);
        if parsed.is_none() {
            let message = format!("invalid clusterIP {text:?}");
            findings.push(Finding::warning(key, Reason::InvalidAddress, message));
        }
        parsed
    });
    wire::Service {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        hostname: mesh.hostname(&meta.namespace, &meta.name),
        addresses: addresses.map(|address| NetworkAddress { address, ..NetworkAddress::default() }).collect(),
        ports: service.spec.ports.iter().map(service_port).collect(),
        load_balancing: load_balancing(service, namespace),
        ip_families: ip_families(&service.spec.ip_families).into(),
        canonical: true,
        ..wire::Service::default()
    }
}

/// An address as bytes in network order; one that is mapped into IPv6 is IPv4.
pub(crate) fn parse_address(text: &str) -> Option<Vec<u8>> {
    Some(match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    })
}

/// A named target port is 0 here: only a pod can tell which number it is.
fn service_port(port: &ServicePort) -> Port {
    Port {
        service_port: port.port.into(),
        target_port: match &port.target_port {
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
        (false, false) => wire::IpFamilies::Automatic,
    }
}

fn load_balancing(service: &Service, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    let (mode, scopes) = preference(service, namespace);
    let health =
        if service.spec.publish_not_ready_addresses { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    if mode == Mode::UnspecifiedMode && health == HealthPolicy::OnlyHealthy {
        return None;
    }
    Some(LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    })
}

fn preference(service: &Service, namespace: Option<&Namespace>) -> (Mode, &'static [Scope]) {
    const ZONE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone];
    const NODE: &[Scope] = &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    if service.spec.internal_traffic_policy.as_deref() == Some("Local") {
        return (Mode::Strict, &[Scope::Node]);
    }
    // The field counts first and exactly; then the annotation of the service, even one that means
    // nothing; then that of its namespace.
    match service.spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") => return (Mode::Failover, ZONE),
        Some("PreferSameNode") => return (Mode::Failover, NODE),
        Some(_) | None => {}
    }
    let annotation = service.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION).or_else(|| {
        namespace.and_then(|namespace| namespace.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION))
    });
    match annotation.map(|value| value.to_ascii_lowercase()).as_deref() {
        Some("preferclose" | "prefersamezone") => (Mode::Failover, ZONE),
        Some("prefersamenode") => (Mode::Failover, NODE),
        Some(_) | None => (Mode::UnspecifiedMode, &[]),
    }
}

/// Setting of a namespace that applies to its services.
pub(crate) fn namespace_setting(namespace: Option<&Namespace>) -> Option<&String> {
    namespace?.metadata.annotations.get(TRAFFIC_DISTRIBUTION_ANNOTATION)
}

/// The ports of a service as a pod serves them: a name is looked up among the pod's TCP ports, and a
/// port whose name it does not have is left out.
pub(crate) fn pod_ports(service: &Service, pod: &Pod) -> PortList {
    let ports = service.spec.ports.iter().filter_map(|port| {
        let target = target(port, pod)?;
        Some(Port { service_port: port.port.into(), target_port: target.into(), ..Port::default() })
    });
    PortList { ports: ports.collect() }
}

/// The port of the pod to which a port of a Service sends; none when the pod has none of that name.
pub(crate) fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        Some(IntOrString::Int(0)) | None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => container_port(pod, name),
    }
}

fn container_port(pod: &Pod, name: &str) -> Option<u16> {
    let sidecars =
        pod.spec.init_containers.iter().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .find(|port| port.name == name && matches!(port.protocol.as_deref(), None | Some("TCP")))
        .map(|port| port.container_port)
}
