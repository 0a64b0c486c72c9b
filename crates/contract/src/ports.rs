//! Port numbers that more than one program, a manifest or a peer knows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A pod's proxy: connections that the pod's applications open. Istio's.
pub const OUTBOUND: u16 = 15001;

/// A pod's proxy: connections to the pod outside of a tunnel. Istio's.
pub const INBOUND_PLAINTEXT: u16 = 15006;

/// A pod's proxy: HBONE tunnels of other proxies, TCP. Istio's.
pub const HBONE: u16 = 15008;

/// A pod's proxy: DNS questions of the pod's applications, UDP and TCP, on loopback or, under strake-agent, the addresses of the pod. Istio's.
pub const DNS: u16 = 15053;

/// Ports of a pod's proxy: a connection from the pod to one of them would loop.
pub const PROXY: [u16; 3] = [OUTBOUND, INBOUND_PLAINTEXT, HBONE];

/// Node proxy: admin pages, on loopback. Istio's, `proxyAdminPort` of ProxyConfig.
pub const PROXY_ADMIN: u16 = 15000;

/// Node proxy: metrics. Istio's, `statsPort` of ProxyConfig.
pub const PROXY_METRICS: u16 = 15020;

/// Node proxy: readiness, path `/healthz/ready`. Istio's.
pub const PROXY_READINESS: u16 = 15021;

/// Control plane: discovery and certificates, gRPC over TLS. Istio's.
pub const CONTROL_GRPC: u16 = 15012;

/// Control plane and agent: metrics, and the control plane's readiness at `/readyz`. Istio's.
pub const MONITORING: u16 = 15014;

/// Agent: health at `/healthz` and readiness at `/readyz`. Istio's CNI node agent.
pub const AGENT_HEALTH: u16 = 8000;

/// A port on all addresses of both families: the default of our programs.
pub const fn on_all_addresses(port: u16) -> SocketAddr {
    // `::` takes IPv4 as well unless the socket is `IPV6_V6ONLY`.
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}
