//! Pod and EndpointSlice to the workloads of discovery.

use contract::Unsupported;
use contract::labels::{
    APP_NAME_LABEL, APP_VERSION_LABEL, CANONICAL_NAME_LABEL, CANONICAL_REVISION_LABEL, REGION_LABEL, SUBZONE_LABEL,
    ZONE_LABEL,
};
use kube_types::ObjectRef;
use kube_types::core::{Endpoint, EndpointSlice, Node, Pod, Service};
use proto::workload::{Locality, NetworkMode, Port, PortList, TunnelProtocol, Workload, WorkloadStatus, WorkloadType};

use crate::enrolment;
use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;
use crate::owner;
use crate::service::parse_address;

/// Objects that a pod's resource depends on, besides the pod.
pub(crate) struct Surroundings {
    pub(crate) locality: Option<Locality>,
    /// Ports by resource name of the service.
    pub(crate) services: Vec<(String, PortList)>,
    /// Resource names of the policies that apply by reference.
    pub(crate) policies: Vec<String>,
}

/// Returns true if the pod is a workload: from its first address to its end.
pub(crate) fn is_sent(pod: &Pod) -> bool {
    !pod.is_terminated() && pod.addresses().next().is_some()
}

/// HBONE is announced when the agent has confirmed it, never from a label.
pub(crate) fn from_pod(
    mesh: &Mesh,
    key: &ObjectRef,
    pod: &Pod,
    around: Surroundings,
    findings: &mut Vec<Finding>,
) -> Workload {
    let meta = &pod.metadata;
    let workload_name = owner::workload_name(pod);
    let healthy = pod.is_ready() && meta.deletion_timestamp.is_none();
    let label = |names: &[&str]| {
        names.iter().filter_map(|name| meta.labels.get(*name)).find(|value| !value.is_empty()).cloned()
    };
    let mut addresses = Vec::new();
    for text in pod.addresses() {
        match parse_address(text) {
            Some(address) => addresses.push(address),
            None => {
                let message = format!("invalid pod IP {text:?}");
                findings.push(Finding::warning(key, Reason::InvalidAddress, message).at("status.podIPs"));
            }
        }
    }
    Workload {
        uid: mesh.pod_uid(&meta.namespace, &meta.name),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        addresses,
        tunnel_protocol: if enrolment::is_enrolled(pod) {
            TunnelProtocol::Hbone.into()
        } else {
            TunnelProtocol::None.into()
        },
        trust_domain: mesh.sent_trust_domain(),
        service_account: pod.service_account().to_owned(),
        node: pod.spec.node_name.clone().unwrap_or_default(),
        canonical_name: label(&[CANONICAL_NAME_LABEL, APP_NAME_LABEL, "app"]).unwrap_or_else(|| workload_name.clone()),
        canonical_revision: label(&[CANONICAL_REVISION_LABEL, APP_VERSION_LABEL, "version"])
            .unwrap_or_else(|| "latest".to_owned()),
        workload_type: WorkloadType::Pod.into(),
        workload_name,
        services: around.services.into_iter().collect(),
        authorization_policies: around.policies,
        status: status(healthy).into(),
        cluster_id: mesh.cluster_id.clone(),
        locality: around.locality,
        network_mode: if pod.spec.host_network {
            NetworkMode::HostNetwork.into()
        } else {
            NetworkMode::Standard.into()
        },
        ..Workload::default()
    }
}

const fn status(healthy: bool) -> WorkloadStatus {
    if healthy { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy }
}

/// Locality of a node, from its labels.
pub(crate) fn locality(node: Option<&Node>) -> Option<Locality> {
    let label = |name: &str| node.and_then(|node| node.metadata.labels.get(name)).cloned();
    let locality = Locality {
        region: label(REGION_LABEL).unwrap_or_default(),
        zone: label(ZONE_LABEL).unwrap_or_default(),
        subzone: label(SUBZONE_LABEL).unwrap_or_default(),
    };
    (locality != Locality::default()).then_some(locality)
}

/// The endpoints of a slice that are no pods. Somebody else chose these addresses: nothing is assumed
/// about who answers there, so they have no identity and no tunnel.
pub(crate) fn from_slice(
    mesh: &Mesh,
    key: &ObjectRef,
    slice: &EndpointSlice,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Vec<Workload> {
    if slice.address_type == "FQDN" {
        let unsupported = Unsupported::new("addressType FQDN", "no connection is sent to these endpoints");
        findings.push(Finding::warning(key, Reason::Unsupported, unsupported.to_string()).at("addressType"));
        return Vec::new();
    }
    let service_key = mesh.service_key(&service.metadata.namespace, &service.metadata.name);
    let ports = slice_ports(slice, service);
    let mut workloads: Vec<Workload> = Vec::new();
    for endpoint in slice.endpoints.iter().filter(|endpoint| pod_target(endpoint).is_none()) {
        let Some(first) = endpoint.addresses.first() else {
            continue;
        };
        let addresses: Vec<_> = endpoint.addresses.iter().filter_map(|text| parse_address(text)).collect();
        if addresses.len() < endpoint.addresses.len() {
            let invalid = endpoint.addresses.iter().find(|text| parse_address(text).is_none());
            let message = format!("invalid endpoint address {:?}: the endpoint is left out", invalid.unwrap_or(first));
            findings.push(Finding::warning(key, Reason::InvalidAddress, message));
            continue;
        }
        let meta = &slice.metadata;
        let uid =
            format!("{}/discovery.k8s.io/EndpointSlice/{}/{}/{first}", mesh.cluster_id, meta.namespace, meta.name);
        if workloads.iter().any(|workload| workload.uid == uid) {
            continue;
        }
        workloads.push(Workload {
            uid,
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            addresses,
            services: [(service_key.clone(), ports.clone())].into_iter().collect(),
            status: status(endpoint.conditions.ready.unwrap_or(true)).into(),
            cluster_id: mesh.cluster_id.clone(),
            network_mode: NetworkMode::HostNetwork.into(),
            ..Workload::default()
        });
    }
    workloads
}

/// Namespace, name and UID of the pod that an endpoint stands for.
pub(crate) fn pod_target(endpoint: &Endpoint) -> Option<(&str, &str, &str)> {
    let target = endpoint.target_ref.as_ref()?;
    (target.kind == "Pod").then_some((&target.namespace, &target.name, &target.uid))
}

/// Ports of the slice that the service knows by the same name; only TCP is carried.
fn slice_ports(slice: &EndpointSlice, service: &Service) -> PortList {
    let ports = slice.ports.iter().filter_map(|port| {
        if !matches!(port.protocol.as_deref(), None | Some("TCP")) {
            return None;
        }
        let name = port.name.as_deref().unwrap_or_default();
        let known = service.spec.ports.iter().find(|known| known.name == name)?;
        Some(Port { service_port: known.port.into(), target_port: port.port?.into(), ..Port::default() })
    });
    PortList { ports: ports.collect() }
}
