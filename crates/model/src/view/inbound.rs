//! Target of a CONNECT to a local workload: the service, and the address its bytes go to. It opens nothing and decides no policy.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use super::{
    balance::{Purpose, ServicePort, target_port},
    is_proxy_port,
    outbound::gateway_workloads,
};
use crate::{GatewayAddress, NetworkAddress, Service, State, Text, TunnelProtocol, Workload, state::Store};

/// `:authority` of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// `10.0.0.1:80`, `[fd00::1]:80`.
    Address(SocketAddr),
    /// `web.shop.svc.cluster.local:80`.
    Hostname { hostname: Text, port: u16 },
}

/// An authority without port, or without host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid CONNECT address {0}")]
pub struct AuthorityError(pub String);

impl FromStr for Authority {
    type Err = AuthorityError;
    fn from_str(value: &str) -> Result<Self, AuthorityError> {
        // First: `[fd00::1]:80` would not pass as a host name, and `10.0.0.1:80` would.
        if let Ok(address) = value.parse::<SocketAddr>() {
            return Ok(Self::Address(SocketAddr::new(address.ip().to_canonical(), address.port())));
        }
        let hostname = value.rsplit_once(':').and_then(|(host, port)| {
            // RFC 1123 names; `*` for wildcard hosts of ServiceEntries, `_` as Kubernetes has it for SRV names.
            let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
            // Only digits: `parse` would take a sign as well (RFC 3986, section 3.2.3).
            let is_port = port.bytes().all(|b| b.is_ascii_digit());
            (is_name && is_port).then_some(())?;
            Some(Self::Hostname { hostname: Text::unique(host), port: port.parse().ok()? })
        });
        hostname.ok_or_else(|| AuthorityError(value.to_owned()))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}

/// A CONNECT as it arrived.
#[derive(Debug, Clone)]
pub struct InboundRequest<'a> {
    /// The workload whose listener took the connection.
    pub local: &'a Workload,
    /// Its `:authority`.
    pub authority: &'a Authority,
    /// Local address of the TCP connection: an address of the pod.
    pub connection_dst: SocketAddr,
    /// `host` of the `forwarded` header.
    pub forwarded_host: Option<&'a str>,
    /// `LOCALHOST_APP_TUNNEL`.
    pub localhost_app_tunnel: bool,
}

/// Local address that the connection to the application gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAddress {
    /// The client's, where the listener is able to.
    Client,
    /// This one.
    Fixed(IpAddr),
}

/// Destination of the bytes of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundTarget {
    /// Address of the application; also what policies are asked about.
    pub dial: SocketAddr,
    /// Own address of that connection.
    pub source: SourceAddress,
    /// Write a PROXY v2 header with this destination before the payload.
    pub proxy_header: Option<SocketAddr>,
    /// Address with which policies compare `destination_ips` and `destination_ports`.
    pub policy_destination: SocketAddr,
    /// For telemetry, a guess.
    pub service: Option<Arc<Service>>,
}

/// Reason for which a CONNECT is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// The authority is somebody else, for whom this workload does not speak.
    #[error("ip mismatch: {connection} != {authority}")]
    IpMismatch { connection: IpAddr, authority: IpAddr },
    /// Nobody has that name.
    #[error("no service or workload for hostname: {0}")]
    UnknownHostname(Text),
    /// The service has no such port, or its target is unknown.
    #[error("requested service {hostname}:{port} found, but cannot resolve port")]
    UnknownPort { hostname: Text, port: u16 },
    /// A PROXY header needs an address and the service has none.
    #[error("no service for target address: {0} has no IP addresses")]
    NoServiceAddress(Text),
    /// It leads to the proxy.
    #[error("attempted recursive call to ourselves")]
    SelfCall,
}

impl InboundError {
    /// Status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::IpMismatch { .. } => 400,
            Self::UnknownHostname(_) | Self::UnknownPort { .. } | Self::NoServiceAddress(_) | Self::SelfCall => 503,
        }
    }

    /// Stable: log key, metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::IpMismatch { .. } => "ip_mismatch",
            Self::UnknownHostname(_) => "unknown_hostname",
            Self::UnknownPort { .. } => "unknown_port",
            Self::NoServiceAddress(_) => "no_service_address",
            Self::SelfCall => "self_call",
        }
    }
}

/// Checks a CONNECT and says where it leads. Policies are to be asked afterwards, before dialling.
///
/// # Errors
/// See [`InboundError::status`] for the answer to give.
pub fn inbound(state: &State, request: &InboundRequest<'_>) -> Result<InboundTarget, InboundError> {
    let network = &state.config().network;
    // One read lock, so that the target is found in one version of the mesh.
    let store = state.read();
    // A dual-stack listener sees `::ffff:10.0.0.1`.
    let connection_ip = request.connection_dst.ip().to_canonical();
    if let Authority::Address(address) = request.authority {
        // A hostname needs no such check: it is looked up below, and its port is dialled at this pod's own address.
        validate(&store, network, request, connection_ip, address.ip())?;
    }
    let (service, port) = match request.authority {
        Authority::Address(address) => (None, address.port()),
        Authority::Hostname { hostname, port } => {
            let (service, port) = resolve_hostname(&store, request.local, hostname, *port)?;
            (Some(service), port)
        }
    };
    // The application's connection would come back to a listener of this proxy.
    if is_proxy_port(SocketAddr::new(connection_ip, port)) {
        return Err(InboundError::SelfCall);
    }
    let mut target = target(network, request, SocketAddr::new(connection_ip, port), service.as_deref())?;
    // An application tunnel has a port of its own.
    if is_proxy_port(target.dial) {
        return Err(InboundError::SelfCall);
    }
    target.service = service.or_else(|| guess(&store, request.local, request.forwarded_host, port));
    Ok(target)
}

/// The service that a plaintext connection to `destination` of `local` was probably for. Telemetry only.
#[must_use]
pub fn destination_service(state: &State, local: &Workload, destination: SocketAddr) -> Option<Arc<Service>> {
    guess(&state.read(), local, None, destination.port())
}

/// May `local` take a connection for `authority`? For its own address; for any if it is a waypoint behind an
/// application tunnel; for those that name it as their waypoint.
fn validate(
    store: &Store,
    network: &Text,
    request: &InboundRequest<'_>,
    connection: IpAddr,
    authority: IpAddr,
) -> Result<(), InboundError> {
    if connection == authority || request.local.application_tunnel.is_some() {
        return Ok(());
    }
    // Istio's sandwiched waypoints: their own node proxy takes tunnels for the services that the waypoint fronts.
    let speaks_for = waypoints_for(store, network, authority).iter().any(|waypoint| {
        let endpoints = gateway_workloads(store, waypoint);
        endpoints.iter().any(|w| w.uid == request.local.uid || w.workload_ips.contains(&connection))
    });
    if speaks_for { Ok(()) } else { Err(InboundError::IpMismatch { connection, authority }) }
}

fn waypoints_for(store: &Store, network: &Text, address: IpAddr) -> Vec<GatewayAddress> {
    if let Some(workload) = store.index.workload(network, address) {
        return workload.waypoint.iter().cloned().collect();
    }
    let address = NetworkAddress::new(network.clone(), address);
    let Some(service) = store.index.any_service_by_address(&address) else { return Vec::new() };
    // A waypoint with weight 0 gets no traffic, so it may not take any either.
    let weighted = service.weighted_waypoints.iter().filter(|w| w.weight > 0).map(|w| &w.destination);
    weighted.chain(&service.waypoint).cloned().collect()
}

fn resolve_hostname(
    store: &Store,
    local: &Workload,
    hostname: &Text,
    port: u16,
) -> Result<(Arc<Service>, u16), InboundError> {
    let service = store.index.service_by_hostname(hostname, &local.namespace);
    let service = service.ok_or_else(|| InboundError::UnknownHostname(hostname.clone()))?;
    let target = target_port(&service, &service.key(), local, ServicePort { number: port, purpose: Purpose::Traffic });
    let target = target.ok_or_else(|| InboundError::UnknownPort { hostname: hostname.clone(), port })?;
    Ok((service, target))
}

fn target(
    network: &Text,
    request: &InboundRequest<'_>,
    plain: SocketAddr,
    service: Option<&Service>,
) -> Result<InboundTarget, InboundError> {
    let mut target = InboundTarget {
        dial: plain,
        source: SourceAddress::Client,
        proxy_header: None,
        policy_destination: plain,
        service: None,
    };
    let Some(tunnel) = request.local.application_tunnel else { return Ok(target) };
    // The application, mostly a waypoint behind its node proxy, takes connections for other addresses on a port of its
    // own.
    target.dial.set_port(tunnel.port.unwrap_or(plain.port()));
    target.policy_destination = target.dial;
    match tunnel.protocol {
        TunnelProtocol::NONE => {}
        TunnelProtocol::PROXY => {
            target.proxy_header = Some(proxy_destination(network, request, service)?);
            if request.localhost_app_tunnel {
                // Reachable only from the pod itself, so nobody else can send a forged PROXY header to it.
                let loopback = loopback(plain.ip());
                target.dial.set_ip(loopback);
                target.source = SourceAddress::Fixed(loopback);
            }
        }
    }
    Ok(target)
}

fn proxy_destination(
    network: &Text,
    request: &InboundRequest<'_>,
    service: Option<&Service>,
) -> Result<SocketAddr, InboundError> {
    match request.authority {
        Authority::Address(address) => Ok(*address),
        Authority::Hostname { hostname, port } => {
            let mut own = service.into_iter().flat_map(|s| &s.vips).filter(|vip| vip.network == *network);
            // Kept for a service that has IPv6 addresses only.
            let first = own.clone().next();
            let vip = own.find(|vip| vip.address.is_ipv4()).or(first);
            let vip = vip.ok_or_else(|| InboundError::NoServiceAddress(hostname.clone()))?;
            Ok(SocketAddr::new(vip.address, *port))
        }
    }
}

const fn loopback(family_of: IpAddr) -> IpAddr {
    match family_of {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

fn guess(store: &Store, local: &Workload, forwarded_host: Option<&str>, port: u16) -> Option<Arc<Service>> {
    let candidates = || local.services.iter().filter_map(|m| Some((m, store.service(&m.service)?)));
    // The client's proxy names the service it was asked for. Only services of this workload count, as anybody may send
    // it.
    let named = forwarded_host.and_then(|host| candidates().find(|(_, s)| s.hostname == *host));
    let by_port = || {
        candidates().find(|(membership, service)| {
            let target = |(_, target): (u16, u16)| target == port;
            service.ports.iter().any(target) || membership.ports.iter().any(target)
        })
    };
    named.or_else(by_port).map(|(_, service)| service)
}
