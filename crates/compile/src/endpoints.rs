//! Endpoints of an EndpointSlice that are not pods, to the workloads of discovery. Somebody else chose these addresses, and
//! nothing is known about the peer there: they have no identity and no tunnel.

use std::collections::BTreeSet;

use graph::{Endpoints, Mesh};
use kube_types::core::{EndpointSlice, Service};
use proto::workload::{NetworkMode, Port, PortList, Workload};

use crate::workload::{parse_address, status};

pub(crate) fn convert(mesh: &Mesh, endpoints: &Endpoints) -> Vec<Workload> {
    let Endpoints { slice, service } = endpoints;
    let service_key = mesh.service_key(&service.metadata.namespace, &service.metadata.name);
    let ports = ports(slice, service);
    let meta = &slice.metadata;
    let prefix = format!("{}/discovery.k8s.io/EndpointSlice/{}/{}", mesh.cluster_id, meta.namespace, meta.name);
    let mut seen = BTreeSet::new();
    let workloads = endpoints.external().filter_map(|endpoint| {
        // All or nothing: traffic for the invalid address would go to the others.
        let addresses = endpoint.addresses.iter().map(|text| parse_address(text)).collect::<Option<Vec<_>>>()?;
        let uid = format!("{prefix}/{}", endpoint.addresses.first()?);
        // A slice that lists an address twice would be two resources of one name.
        seen.insert(uid.clone()).then(|| Workload {
            uid,
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            addresses,
            network: mesh.network.clone(),
            services: [(service_key.clone(), ports.clone())].into_iter().collect(),
            // Kubernetes: an absent `ready` is to be read as true.
            status: status(endpoint.conditions.ready.unwrap_or(true)).into(),
            cluster_id: mesh.cluster_id.clone(),
            // Never found by its address: anybody may write an endpoint with the address of a pod, and must not become
            // that pod.
            network_mode: NetworkMode::HostNetwork.into(),
            ..Workload::default()
        })
    });
    workloads.collect()
}

/// Ports of the slice that the service knows by the same name; only TCP is carried.
fn ports(slice: &EndpointSlice, service: &Service) -> PortList {
    let ports = slice.ports.iter().filter_map(|port| {
        if !matches!(port.protocol.as_deref(), None | Some("TCP")) {
            return None;
        }
        // A Service with one port may leave its name out; the slice then has an empty one or none.
        let name = port.name.as_deref().unwrap_or_default();
        // Kubernetes joins ports of slice and Service by their names; numbers may differ.
        let known = service.spec.ports.iter().find(|known| known.name == name)?;
        // Without a number the slice does not say where to connect.
        Some(Port { service_port: known.port.into(), target_port: port.port?.into(), ..Port::default() })
    });
    PortList { ports: ports.collect() }
}
