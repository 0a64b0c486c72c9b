//! Route of a connection of a captured workload. It opens nothing.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use contract::ports;
use identity::Identity;
use rand::Rng;

use super::{
    balance::{self, Choice, Client, Purpose, ServicePort},
    is_proxy_port,
};
use crate::{
    GatewayAddress, GatewayDestination, InboundProtocol, LoadBalancerMode, NetworkAddress, Service, State, Text,
    Workload, state::Store,
};

/// Address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dial {
    /// An address.
    Address(SocketAddr),
    /// The workload has no address: resolve its name first (metric `istio_on_demand_dns_total`). Prefer the family of
    /// `original`, take a random one of the answers.
    Hostname { hostname: Text, port: u16, original: SocketAddr },
}

/// A tunnel to open, or to take from the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hbone {
    /// `:authority` of the CONNECT.
    pub authority: String,
    /// The peer must prove one of them; empty: no peer can.
    pub expected: Vec<Identity>,
    /// The peer is a waypoint on the way to the destination, not the destination.
    pub via_waypoint: bool,
}

/// A tunnel within a tunnel through the gateway of another network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubleHbone {
    /// To the gateway.
    pub outer: Hbone,
    /// To the workload behind it.
    pub inner: Hbone,
}

/// Protocol in which the destination takes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// HBONE to the destination or its waypoint.
    Hbone(Hbone),
    /// HBONE through a gateway. [`outbound`] gives [`RouteError::OtherNetwork`] instead.
    DoubleHbone(DoubleHbone),
    /// Plain TCP to a workload of the mesh that is not captured.
    Tcp,
    /// Plain TCP to where the application wanted.
    Passthrough,
    /// Nothing is known of the address. Plain TCP as with [`RouteKind::Passthrough`], but only once discovery was asked: the
    /// address may be that of a pod of the mesh which it has not announced yet.
    Unknown,
}

/// The way of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Protocol.
    pub kind: RouteKind,
    /// Address.
    pub dial: Dial,
    /// The next hop, for telemetry: the destination, or its waypoint.
    pub workload: Option<Arc<Workload>>,
    /// The service that the application meant, for telemetry.
    pub service: Option<Arc<Service>>,
}

/// Reason for which there is no way. Nothing may be sent to the destination then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The application connects to a port of the proxy.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
    /// The service has no endpoint that fits, or not that port.
    #[error("no healthy upstream: {0}")]
    NoHealthyUpstream(SocketAddr),
    /// A waypoint is required and cannot be found.
    #[error("unknown waypoint: {0}")]
    UnknownWaypoint(GatewayAddress),
    /// A pod of the mesh had this address until discovery removed it; it gets no plaintext.
    #[error("no plaintext to {0}: discovery has removed the pod of the mesh that had this address")]
    Departed(SocketAddr),
    /// The endpoint has neither address nor name nor gateway.
    #[error("no valid routing destination for workload: {0}")]
    NoRoute(Text),
    /// The endpoint is in another network.
    #[error("workload {uid} is in network {network:?}: tunnels to other networks are not supported")]
    OtherNetwork { uid: Text, network: Text },
}

impl RouteError {
    /// Stable: log key, metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SelfCall => "self_call",
            Self::NoHealthyUpstream(_) => "no_healthy_upstream",
            Self::UnknownWaypoint(_) => "unknown_waypoint",
            Self::Departed(_) => "destination_departed",
            Self::NoRoute(_) => "no_route",
            Self::OtherNetwork { .. } => "other_network",
        }
    }
}

impl Dial {
    /// The address, if it is known without resolving a name.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Hostname { .. } => None,
        }
    }
}

impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname { hostname, port, .. } => write!(f, "{hostname}:{port}"),
        }
    }
}

/// The way of a connection that `source` opens to `destination` (its original one).
///
/// # Errors
/// When nothing that fits is known, or a required waypoint is not: the connection must then fail, never go around it.
pub fn outbound(state: &State, source: &Workload, destination: SocketAddr) -> Result<Route, RouteError> {
    route(state, source, destination, &[])
}

/// The way of the same connection to another endpoint of the service, or to another endpoint of its waypoint, than those
/// whose uids are in `except`. Preferences hold among the rest. None: there is no other one, for instance because the
/// connection is to the address of a workload.
#[must_use]
pub fn outbound_except(state: &State, source: &Workload, destination: SocketAddr, except: &[Text]) -> Option<Route> {
    let route = route(state, source, destination, except).ok()?;
    // A way without a choice leads to the same workload again.
    let is_other = route.workload.as_ref().is_some_and(|workload| !except.contains(&workload.uid));
    is_other.then_some(route)
}

fn route(state: &State, source: &Workload, destination: SocketAddr, except: &[Text]) -> Result<Route, RouteError> {
    // Dual-stack listeners see IPv4 destinations as ::ffff:a.b.c.d; the store has canonical addresses only.
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    // On loopback only: at another address these are another pod's ports.
    if destination.ip().is_loopback() && is_proxy_port(destination) {
        return Err(RouteError::SelfCall);
    }
    let network = &state.config().network;
    // One read lock for the whole decision, so that it is made on one version of the mesh. No wait below it.
    let store = state.read();
    Router { store: &store, source, destination, except }.route(network, &mut rand::rng())
}

/// Workload that takes a connection, before its waypoint is considered.
enum Upstream {
    Found(Choice),
    /// The address is meant as it is.
    AsDialled,
    /// Nothing is known of the address.
    Unknown,
}

struct Router<'a> {
    store: &'a Store,
    source: &'a Workload,
    destination: SocketAddr,
    /// Uids of endpoints that are not chosen.
    except: &'a [Text],
}

impl Router<'_> {
    fn route(&self, network: &Text, rng: &mut impl Rng) -> Result<Route, RouteError> {
        let ip = self.destination.ip();
        let client = &self.source.namespace;
        // A workload's own address is not service-addressed, even where a service has the same.
        let addressed = match self.store.index.workload(network, ip) {
            Some(_) => None,
            None => self.store.index.service_by_address(network, ip, client),
        };
        if let Some(service) = &addressed
            && let Some(waypoint) = waypoint_of(service, rng)
        {
            // Before any endpoint is chosen: the waypoint chooses, and a service without endpoints may still have
            // routes.
            return self.through_waypoint(waypoint, Some(service.clone()), rng);
        }
        let choice = match self.find_upstream(rng)? {
            Upstream::Found(choice) => choice,
            Upstream::AsDialled => return self.plain(RouteKind::Passthrough),
            Upstream::Unknown if self.is_never_announced() => return self.plain(RouteKind::Passthrough),
            Upstream::Unknown => return self.plain(RouteKind::Unknown),
        };
        if choice.workload.network != self.source.network {
            return Err(other_network(&choice.workload));
        }
        // The workload's waypoint is for connections to its address; those to a service have passed the service's, if
        // it has one.
        if addressed.is_none()
            && let Some(waypoint) = &choice.workload.waypoint
            && !self.source_is_waypoint(waypoint)
        {
            return self.through_waypoint(waypoint, choice.service.clone(), rng);
        }
        self.direct(choice)
    }

    fn find_upstream(&self, rng: &mut impl Rng) -> Result<Upstream, RouteError> {
        let (ip, port) = (self.destination.ip(), self.destination.port());
        let network = &self.source.network;
        if let Some(service) = self.store.index.service_by_address(network, ip, &self.source.namespace) {
            // Clients of such a service have chosen the address themselves (resolution NONE).
            if service.mode() == LoadBalancerMode::Passthrough {
                return Ok(Upstream::AsDialled);
            }
            let choice = self.choose(&service, ServicePort { number: port, purpose: Purpose::Traffic }, rng);
            return choice.map(Upstream::Found).ok_or(RouteError::NoHealthyUpstream(self.destination));
        }
        // By the client's network: an address means something else in another one.
        let workload = self.store.index.workload(network, ip);
        Ok(workload.map_or(Upstream::Unknown, |workload| Upstream::Found(Choice { workload, port, service: None })))
    }

    /// Is this an address of which discovery never speaks: of this pod, of this link, or of nobody?
    fn is_never_announced(&self) -> bool {
        let ip = self.destination.ip();
        let of_link = match ip {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        of_link
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.is_unspecified()
            || self.source.workload_ips.contains(&ip)
    }

    /// Plain TCP to the original destination.
    fn plain(&self, kind: RouteKind) -> Result<Route, RouteError> {
        // A pod of the mesh that is gone: its clients may still have the address, and would now send plaintext to
        // whoever gets it.
        if self.store.departed.contains(&self.source.network, self.destination.ip(), Instant::now()) {
            return Err(RouteError::Departed(self.destination));
        }
        Ok(Route { kind, dial: Dial::Address(self.destination), workload: None, service: None })
    }

    fn direct(&self, choice: Choice) -> Result<Route, RouteError> {
        let dial = self.dial(&choice, self.destination)?;
        let (kind, dial) = match choice.workload.protocol {
            InboundProtocol::TCP => (RouteKind::Tcp, dial),
            InboundProtocol::HBONE => {
                let authority = dial.to_string();
                let hbone = Hbone { authority, expected: expected(&choice), via_waypoint: false };
                // CONNECT names the application's port, and the connection goes to 15008 of the same address.
                (RouteKind::Hbone(hbone), with_port(dial, ports::HBONE))
            }
        };
        Ok(Route { kind, dial, workload: Some(choice.workload), service: choice.service })
    }

    fn through_waypoint(
        &self,
        waypoint: &GatewayAddress,
        service: Option<Arc<Service>>,
        rng: &mut impl Rng,
    ) -> Result<Route, RouteError> {
        let unknown = || RouteError::UnknownWaypoint(waypoint.clone());
        // Never a direct way instead: the waypoint enforces policies that nobody else does.
        let choice = self.find_gateway(waypoint, rng).ok_or_else(unknown)?;
        if choice.workload.network != self.source.network {
            return Err(other_network(&choice.workload));
        }
        // For the choice of the address family only: that of the reference, else that of the application's connection.
        let original = match &waypoint.destination {
            GatewayDestination::Address(address) => SocketAddr::new(address.address, waypoint.hbone_mtls_port),
            GatewayDestination::Hostname(_) => self.destination,
        };
        // A waypoint without an address fails like an unknown one: never around it.
        let dial = self.dial(&choice, original).map_err(|_| unknown())?;
        // The authority stays the original destination, by which the waypoint finds the service.
        let hbone = Hbone { authority: self.destination.to_string(), expected: expected(&choice), via_waypoint: true };
        Ok(Route { kind: RouteKind::Hbone(hbone), dial, workload: Some(choice.workload), service })
    }

    fn find_gateway(&self, gateway: &GatewayAddress, rng: &mut impl Rng) -> Option<Choice> {
        let port = gateway.hbone_mtls_port;
        let service = match &gateway.destination {
            GatewayDestination::Hostname(name) => self.store.service(name),
            GatewayDestination::Address(address) => self.store.index.any_service_by_address(address),
        };
        if let Some(service) = service {
            return self.choose(&service, ServicePort { number: port, purpose: Purpose::Gateway }, rng);
        }
        let workload = gateway_workload(self.store, gateway)?;
        Some(Choice { workload, port, service: None })
    }

    fn choose(&self, service: &Arc<Service>, port: ServicePort, rng: &mut impl Rng) -> Option<Choice> {
        balance::choose(self.store, Client { workload: self.source, except: self.except }, service, port, rng)
    }

    fn dial(&self, choice: &Choice, original: SocketAddr) -> Result<Dial, RouteError> {
        if let Some(ip) = balance::select_ip(choice, original.ip()) {
            return Ok(Dial::Address(SocketAddr::new(ip, choice.port)));
        }
        let workload = &choice.workload;
        // ServiceEntry endpoints with a DNS name only: resolved at each connection, by the proxy and not here.
        if workload.workload_ips.is_empty() && !workload.hostname.is_empty() {
            return Ok(Dial::Hostname { hostname: workload.hostname.clone(), port: choice.port, original });
        }
        Err(RouteError::NoRoute(workload.uid.clone()))
    }

    /// Is the source one of the endpoints behind that reference? Then the waypoint has already seen the connection.
    fn source_is_waypoint(&self, waypoint: &GatewayAddress) -> bool {
        gateway_workloads(self.store, waypoint).iter().any(|w| is_same(w, self.source))
    }
}

fn waypoint_of<'a>(service: &'a Service, rng: &mut impl Rng) -> Option<&'a GatewayAddress> {
    // Canary waypoints by weight; weights of 0 altogether mean the ordinary one.
    let weighted = balance::weighted(&service.weighted_waypoints, |w| w.weight, rng);
    weighted.map(|w| &w.destination).or(service.waypoint.as_ref())
}

/// Same identity, and an address in common.
fn is_same(a: &Workload, b: &Workload) -> bool {
    a.identity().is_some()
        && a.identity() == b.identity()
        && a.workload_ips.iter().any(|ip| b.workload_ips.contains(ip))
}

/// All workloads that a gateway reference can lead to.
pub(super) fn gateway_workloads(store: &Store, gateway: &GatewayAddress) -> Vec<Arc<Workload>> {
    let service = match &gateway.destination {
        GatewayDestination::Hostname(name) => store.service(name),
        GatewayDestination::Address(address) => store.index.any_service_by_address(address),
    };
    match service {
        Some(service) => store.members(&service.key()).cloned().collect(),
        None => gateway_workload(store, gateway).into_iter().collect(),
    }
}

fn gateway_workload(store: &Store, gateway: &GatewayAddress) -> Option<Arc<Workload>> {
    match &gateway.destination {
        GatewayDestination::Hostname(name) => store.workload_by_hostname(&name.hostname),
        GatewayDestination::Address(NetworkAddress { network, address }) => store.index.workload(network, *address),
    }
}

fn expected(choice: &Choice) -> Vec<Identity> {
    // Subject alternative names of the service, if it lists any, and the endpoint's own identity.
    let mut all: Vec<Identity> = choice.service.iter().flat_map(|s| s.identities()).collect();
    if let Some(own) = choice.workload.identity()
        && !all.contains(&own)
    {
        all.push(own);
    }
    all
}

fn with_port(dial: Dial, port: u16) -> Dial {
    match dial {
        Dial::Address(address) => Dial::Address(SocketAddr::new(address.ip(), port)),
        Dial::Hostname { hostname, original, .. } => Dial::Hostname { hostname, port, original },
    }
}

fn other_network(workload: &Workload) -> RouteError {
    match workload.network_gateway {
        Some(_) => RouteError::OtherNetwork { uid: workload.uid.clone(), network: workload.network.clone() },
        // No gateway leads there.
        None => RouteError::NoRoute(workload.uid.clone()),
    }
}
