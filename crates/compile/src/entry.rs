//! A ServiceEntry to the services of its hosts.

use std::net::IpAddr;

use contract::address::parse_block;
use graph::{EntryHost, EntryServices, Mesh, Visibility, entry_target};
use kube_types::istio::{EntryPort, Resolution};
use proto::workload::load_balancing::{HealthPolicy, Mode};
use proto::workload::{self as wire, LoadBalancing, NetworkAddress, Port};

use crate::app_protocol;
use crate::gateway::{self, network_address};
use crate::service::annotated_preference;
use crate::workload::octets;

/// The services, in the order of the hosts.
pub(crate) fn services(mesh: &Mesh, entry: &EntryServices) -> Vec<wire::Service> {
    entry.hosts.iter().map(|host| service(mesh, entry, host)).collect()
}

/// Resource name of the service for a host.
pub(crate) fn service_key(namespace: &str, host: &str) -> String {
    format!("{namespace}/{host}")
}

fn service(mesh: &Mesh, entry: &EntryServices, host: &EntryHost) -> wire::Service {
    let (meta, spec) = (&entry.entry.metadata, &entry.entry.spec);
    let given = spec.addresses.iter().filter_map(|text| block(mesh, text));
    let allocated = host.allocated.iter().map(|address| network_address(mesh, *address));
    let visibility = match entry.visibility {
        Visibility::Public => wire::service::Visibility::Public,
        Visibility::Namespace => wire::service::Visibility::Namespace,
    };
    wire::Service {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        hostname: host.host.clone(),
        addresses: given.chain(allocated).collect(),
        ports: spec.ports.iter().map(service_port).collect(),
        subject_alt_names: spec.subject_alt_names.clone(),
        waypoint: entry.waypoints.primary.as_ref().map(|primary| gateway::address(mesh, primary)),
        load_balancing: load_balancing(entry),
        canonical: host.is_canonical,
        ingress_use_waypoint: entry.waypoints.ingress,
        weighted_waypoints: gateway::weighted(mesh, &entry.waypoints),
        visibility: visibility.into(),
        ..wire::Service::default()
    }
}

/// An address, or a block of them. The graph reports invalid ones.
fn block(mesh: &Mesh, text: &str) -> Option<NetworkAddress> {
    let block = parse_block(text)?;
    let length = (block.prefix_len() != block.max_prefix_len()).then(|| block.prefix_len().into());
    // A block may be written with bits of a host, as `10.0.0.1/8`.
    let address = if length.is_some() { block.network() } else { block.addr() };
    Some(NetworkAddress { network: mesh.network.clone(), address: octets(address), length })
}

fn service_port(port: &EntryPort) -> Port {
    Port {
        service_port: port.number.into(),
        target_port: entry_target(port).into(),
        app_protocol: app_protocol::by_name(&port.protocol).into(),
    }
}

fn load_balancing(entry: &EntryServices) -> Option<LoadBalancing> {
    if entry.entry.spec.resolution == Resolution::None {
        // The address that the client has chosen is the endpoint.
        return Some(LoadBalancing {
            routing_preference: Vec::new(),
            mode: Mode::Passthrough.into(),
            health_policy: HealthPolicy::AllowAll.into(),
        });
    }
    let (mode, scopes) = annotated_preference(&entry.entry.metadata, entry.namespace.as_deref());
    (mode != Mode::UnspecifiedMode).then(|| LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: HealthPolicy::OnlyHealthy.into(),
    })
}

/// Address of a workload that is given as text.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    contract::address::parse_address(text)
}
