//! Waypoints to the addresses that discovery gives them.

use std::net::IpAddr;

use graph::{GatewayAddress, Mesh, WAYPOINT_PORT, Waypoints};
use proto::workload::gateway_address::Destination;
use proto::workload::{self as wire, NamespacedHostname, NetworkAddress, WeightedWaypoint};

use crate::workload::octets;

pub(crate) fn address(mesh: &Mesh, gateway: &GatewayAddress) -> wire::GatewayAddress {
    let destination = match gateway {
        GatewayAddress::Hostname { namespace, hostname } => {
            Destination::Hostname(NamespacedHostname { namespace: namespace.clone(), hostname: hostname.clone() })
        }
        GatewayAddress::Address(address) => Destination::Address(network_address(mesh, *address)),
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: WAYPOINT_PORT.into() }
}

pub(crate) fn weighted(mesh: &Mesh, waypoints: &Waypoints) -> Vec<WeightedWaypoint> {
    let of = |(gateway, weight): &(GatewayAddress, u32)| WeightedWaypoint {
        destination: Some(address(mesh, gateway)),
        weight: *weight,
    };
    waypoints.weighted.iter().map(of).collect()
}

/// An address on the network of the cluster.
pub(crate) fn network_address(mesh: &Mesh, address: IpAddr) -> NetworkAddress {
    NetworkAddress { network: mesh.network.clone(), address: octets(address), length: None }
}
