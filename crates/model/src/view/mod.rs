//! Views of the mesh for one connection: its route ([`mod@outbound`]), its target ([`mod@inbound`]); and for a DNS question
//! ([`names`]). Opens nothing, decides no policy.

mod balance;
mod inbound;
pub mod names;
mod outbound;
#[cfg(test)]
mod tests;
mod waypoint;

use std::net::SocketAddr;

pub use inbound::{
    Authority, AuthorityError, InboundError, InboundRequest, InboundTarget, SourceAddress, destination_service, inbound,
};
pub use outbound::{Dial, DoubleHbone, Hbone, Route, RouteError, RouteKind, outbound, outbound_except};
pub use waypoint::{Endpoint, Endpoints, WaypointTarget, endpoints, waypoint_target};

/// Would a connection to this port of a captured pod come back to the proxy?
#[must_use]
pub fn is_proxy_port(destination: SocketAddr) -> bool {
    contract::ports::PROXY.contains(&destination.port())
}
