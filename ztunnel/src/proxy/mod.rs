//! The path of a connection, in six named steps: [`capture`], [`resolve`], [`authorise`], [`dial`],
//! [`relay`], [`report`]. [`outbound`], [`inbound`] and [`plaintext`] put them in order for the three
//! listeners. `workers` decides which thread carries a connection.
//!
//! From capture to report a connection has a `client` (address that opened it), an `original_dst` (address that the client
//! connected to) and a `next_hop` (address that this proxy connects to).

mod attempts;
pub mod authorise;
pub mod capture;
mod connection;
mod context;
mod description;
pub mod dial;
mod failure;
mod gateway_baggage;
pub mod inbound;
mod open_connections;
pub mod outbound;
pub mod plaintext;
mod proxy_header;
pub mod relay;
pub mod report;
mod reset_on_drop;
pub mod resolve;
mod shared;
#[cfg(test)]
mod testing;
mod traffic_by_peers;

pub use attempts::FailingEndpoints;
pub use connection::Connection;
pub use context::{
    HANDSHAKES, POD_HANDSHAKES, POD_TUNNELS, PodContext, SOURCE_HANDSHAKES, SOURCE_TUNNELS, WorkerContext,
};
pub use description::Description;
pub use failure::{EarlyFailure, Failure};
pub use gateway_baggage::GatewayBaggage;
pub use open_connections::OpenConnections;
pub use shared::Shared;
pub use traffic_by_peers::TrafficByPeers;
