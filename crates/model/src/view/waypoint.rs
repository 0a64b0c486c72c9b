//! The mesh as a waypoint sees it: what a CONNECT asks for, and the endpoints of a service. It chooses none of them and opens
//! nothing.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use identity::Identity;

use super::{
    balance::{Purpose, ServicePort, target_port},
    inbound::Authority,
    outbound::gateway_workloads,
};
use crate::{GatewayAddress, InboundProtocol, Service, State, Workload};

/// Destination that a client asks a waypoint for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaypointTarget {
    /// A port of a service.
    Service { service: Arc<Service>, port: u16 },
    /// A port of one workload.
    Workload { workload: Arc<Workload>, port: u16 },
}

/// Workload that takes requests for a port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub workload: Arc<Workload>,
    /// Address of the application.
    pub address: SocketAddr,
}

/// Endpoints of a port of a service, as of one version of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The service; `None` if there is none of that name.
    pub service: Option<Arc<Service>>,
    /// Healthy workloads with an address in this network, by uid.
    pub endpoints: Vec<Endpoint>,
    /// Workloads that would be endpoints and cannot be reached: without an address, or in another network.
    pub unreachable: usize,
}

/// Finds the destination of a CONNECT of a client of `namespace`. `None`: nobody has that address or name, or it is a workload
/// that does not have the waypoint `own`, an identity: a waypoint must not lend its identity to whoever asks.
#[must_use]
pub fn waypoint_target(
    state: &State,
    authority: &Authority,
    namespace: &str,
    own: Option<&Identity>,
) -> Option<WaypointTarget> {
    let network = &state.config().network;
    let store = state.read();
    let (service, port) = match authority {
        Authority::Hostname { hostname, port } => (store.index.service_by_hostname(hostname, namespace)?, *port),
        Authority::Address(address) => {
            // As for connections of applications: a workload's own address is not service-addressed.
            if let Some(workload) = store.index.workload(network, address.ip()) {
                let leads_here = |gateway: &GatewayAddress| {
                    gateway_workloads(&store, gateway).iter().any(|w| own.is_some() && w.identity().as_ref() == own)
                };
                let is_bound = workload.waypoint.as_ref().is_some_and(leads_here);
                return is_bound.then_some(WaypointTarget::Workload { workload, port: address.port() });
            }
            (store.index.service_by_address(network, address.ip(), namespace)?, address.port())
        }
    };
    service.ports.contains(port).then_some(WaypointTarget::Service { service, port })
}

/// The endpoints of `port` of the service with this host name, of which a client of `namespace` would get one.
#[must_use]
pub fn endpoints(state: &State, hostname: &str, namespace: &str, port: u16) -> Endpoints {
    let network = &state.config().network;
    let store = state.read();
    let Some(service) = store.index.service_by_hostname(hostname, namespace) else { return Endpoints::default() };
    let key = service.key();
    let port = ServicePort { number: port, purpose: Purpose::Traffic };
    let mut unreachable = 0;
    let mut endpoints = Vec::new();
    for workload in store.members(&key).filter(|w| service.admits(w.status)) {
        let Some(target) = target_port(&service, &key, workload, port) else { continue };
        match address(&service, workload).filter(|_| workload.network == *network) {
            Some(ip) => endpoints.push(Endpoint { workload: workload.clone(), address: SocketAddr::new(ip, target) }),
            None => unreachable += 1,
        }
    }
    Endpoints { service: Some(service), endpoints, unreachable }
}

fn address(service: &Service, workload: &Workload) -> Option<IpAddr> {
    let admitted = |ip: &&IpAddr| service.ip_families.is_none_or(|families| families.accepts(**ip));
    workload.workload_ips.iter().find(admitted).copied()
}

impl Endpoint {
    /// Identities of which the endpoint has to prove one; `None` for an endpoint that takes plain TCP. Empty: nobody can open
    /// a tunnel to it.
    #[must_use]
    pub fn expected(&self, service: Option<&Service>) -> Option<Vec<Identity>> {
        match self.workload.protocol {
            InboundProtocol::TCP => None,
            InboundProtocol::HBONE => {
                let mut all: Vec<Identity> = service.into_iter().flat_map(Service::identities).collect();
                all.extend(self.workload.identity().filter(|own| !all.contains(own)));
                Some(all)
            }
        }
    }
}
