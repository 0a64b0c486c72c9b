//! Port of a pod to which a port of a Service sends.

use kube_types::core::{IntOrString, Pod, ServicePort};
use kube_types::istio::EntryPort;

/// Resolves `targetPort` for a pod: a name is looked up among the TCP ports of its containers. `None` when the pod has no
/// port of that name.
pub fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        // The API server fills in `port`; nothing does so for a manifest in a directory.
        Some(IntOrString::Int(0)) | None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => container_port(pod, name),
    }
}

/// Port of a pod to which a port of a ServiceEntry that selects it sends: the container's port of the same name before the
/// one that the entry names.
pub fn entry_port_of_pod(port: &EntryPort, pod: &Pod) -> u16 {
    // A container's port without a name must not match an entry's port without a name.
    container_port(pod, &port.name).filter(|_| !port.name.is_empty()).unwrap_or_else(|| entry_target(port))
}

/// Port of the endpoints that a ServiceEntry names.
pub fn entry_target(port: &EntryPort) -> u16 {
    port.target_port.filter(|target| *target != 0).unwrap_or(port.number)
}

fn container_port(pod: &Pod, name: &str) -> Option<u16> {
    // Init containers that are restarted are sidecars: they run as long as the pod.
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
