//! The side towards endpoints: which there are, connections to them, and the HTTP connections that are kept.

mod balance;
mod dial;
mod endpoints;
mod exec;
mod http1;
mod http2;
mod pool;

pub use dial::{CONNECT_TIMEOUT, Connection, DialError, Transport, TunnelKey, connect};
pub use endpoints::{EndpointCache, EndpointSet, Upstream};
pub use exec::LocalExec;
pub use http1::Raw;
pub use pool::{Connections, HttpVersion, Lease};
