//! WorkloadEntries, and endpoints that a ServiceEntry lists, to the workloads of discovery.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contract::labels::TUNNEL_LABEL;
use contract::labels::{REDIRECTION_ANNOTATION, REDIRECTION_ENABLED};
use graph::{EntryEndpoint, EntryServices, EntryWorkload, Mesh, SelectedEntry, entry_target};
use kube_types::core::{IntOrString, Service};
use kube_types::istio::{ServiceEntry, WorkloadEntrySpec};
use kube_types::{ObjectMeta, StringMap};
use proto::workload::{self as wire, Port, PortList, TunnelProtocol, WorkloadType};

use crate::entry::{ip, service_key};
use crate::workload::{octets, trust_domain};
use crate::{canonical, gateway};

/// Prefix of an address that nothing but a process of the same machine can reach.
const UNIX: &str = "unix://";

/// The workload of a WorkloadEntry; `None` when no connection could go there.
pub(crate) fn convert(mesh: &Mesh, entry: &EntryWorkload) -> Option<wire::Workload> {
    let (meta, spec) = (&entry.entry.metadata, &entry.entry.spec);
    let kubernetes = entry.services.iter().map(|service| {
        let meta = &service.metadata;
        (mesh.service_key(&meta.namespace, &meta.name), ports_of_service(service, &spec.ports))
    });
    let others = entry.entries.iter().flat_map(|selected| memberships(selected, &spec.ports));
    let common = Common {
        uid: format!("{}/networking.istio.io/WorkloadEntry/{}/{}", mesh.cluster_id, meta.namespace, meta.name),
        meta,
        labels: &entry.labels,
        policies: &entry.policies,
        services: kubernetes.chain(others).collect(),
    };
    let workload = workload(mesh, common, spec)?;
    let waypoint = entry.waypoint.as_ref().map(|waypoint| gateway::address(mesh, waypoint));
    Some(wire::Workload { waypoint, ..workload })
}

/// The workloads of the endpoints of a ServiceEntry. Of several with one address the first counts.
pub(crate) fn endpoints(mesh: &Mesh, entry: &EntryServices) -> Vec<wire::Workload> {
    let mut seen = BTreeSet::new();
    let workloads = entry.endpoints.iter().filter_map(|endpoint| endpoint_workload(mesh, entry, endpoint));
    workloads.filter(|workload| seen.insert(workload.uid.clone())).collect()
}

fn endpoint_workload(mesh: &Mesh, entry: &EntryServices, endpoint: &EntryEndpoint) -> Option<wire::Workload> {
    let (meta, spec) = (&entry.entry.metadata, &endpoint.spec);
    let (namespace, name) = (&meta.namespace, &meta.name);
    let selected = SelectedEntry { entry: entry.entry.clone(), hosts: endpoint.hosts.clone() };
    let common = Common {
        uid: format!("{}/networking.istio.io/ServiceEntry/{namespace}/{name}/{}", mesh.cluster_id, spec.address),
        meta,
        labels: &meta.labels,
        policies: &entry.policies,
        services: memberships(&selected, &spec.ports).collect(),
    };
    let workload = workload(mesh, common, spec)?;
    let waypoint = endpoint.waypoint.as_ref().map(|waypoint| gateway::address(mesh, waypoint));
    Some(wire::Workload { waypoint, ..workload })
}

/// What is not in the specification of the endpoint.
struct Common<'a> {
    uid: String,
    meta: &'a ObjectMeta,
    labels: &'a StringMap,
    policies: &'a [String],
    services: HashMap<String, PortList>,
}

fn workload(mesh: &Mesh, common: Common<'_>, spec: &WorkloadEntrySpec) -> Option<wire::Workload> {
    let Common { uid, meta, labels, policies, services } = common;
    let address = spec.address.as_str();
    // Without address a workload is behind the gateway of its network.
    if address.starts_with(UNIX) || address.is_empty() && spec.network.is_empty() {
        return None;
    }
    let ip = ip(address);
    let (canonical_name, canonical_revision) = canonical::names(labels, &meta.name);
    let is_native = labels.get(TUNNEL_LABEL).is_some_and(|tunnels| tunnels.split(',').any(|tunnel| tunnel == "http"));
    let is_redirected = meta.annotations.get(REDIRECTION_ANNOTATION).is_some_and(|value| value == REDIRECTION_ENABLED);
    let tunnel = if is_native || is_redirected { TunnelProtocol::Hbone } else { TunnelProtocol::None };
    Some(wire::Workload {
        uid,
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        addresses: ip.map(octets).into_iter().collect(),
        // The proxy resolves a name when the first connection needs it.
        hostname: if ip.is_none() { address.to_owned() } else { String::new() },
        network: if spec.network.is_empty() { mesh.network.clone() } else { spec.network.clone() },
        tunnel_protocol: tunnel.into(),
        native_tunnel: is_native,
        trust_domain: trust_domain(mesh),
        service_account: spec.service_account.clone(),
        canonical_name,
        canonical_revision,
        workload_type: WorkloadType::Pod.into(),
        workload_name: meta.name.clone(),
        services,
        authorization_policies: policies.to_vec(),
        cluster_id: mesh.cluster_id.clone(),
        locality: locality(&spec.locality),
        capacity: Some(spec.weight).filter(|weight| *weight != 0),
        ..wire::Workload::default()
    })
}

/// `region/zone/subzone`, of which the last parts may be missing.
fn locality(text: &str) -> Option<wire::Locality> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    (!text.is_empty()).then(|| wire::Locality { region: next(), zone: next(), subzone: next() })
}

/// The services of an entry that selects a workload with these ports by name.
fn memberships<'a>(
    selected: &'a SelectedEntry,
    ports: &'a BTreeMap<String, u16>,
) -> impl Iterator<Item = (String, PortList)> + 'a {
    let namespace = &selected.entry.metadata.namespace;
    let ports = ports_of_entry(&selected.entry, ports);
    selected.hosts.iter().map(move |host| (service_key(namespace, host), ports.clone()))
}

fn ports_of_entry(entry: &ServiceEntry, own: &BTreeMap<String, u16>) -> PortList {
    let ports = entry.spec.ports.iter().map(|port| Port {
        service_port: port.number.into(),
        target_port: own.get(&port.name).copied().unwrap_or_else(|| entry_target(port)).into(),
        ..Port::default()
    });
    PortList { ports: ports.collect() }
}

/// A port of a Service with a named target is left out when the workload has no port of that name.
fn ports_of_service(service: &Service, own: &BTreeMap<String, u16>) -> PortList {
    let ports = service.spec.ports.iter().filter_map(|port| {
        let target = match &port.target_port {
            // As the API server fills it in.
            Some(IntOrString::Int(0)) | None => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => *own.get(name)?,
        };
        Some(Port { service_port: port.port.into(), target_port: target.into(), ..Port::default() })
    });
    PortList { ports: ports.collect() }
}
