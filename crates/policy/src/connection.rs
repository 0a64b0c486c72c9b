//! Facts of a connection that policies compare.

use std::net::{IpAddr, SocketAddr};

use identity::Identity;

/// A connection to a local workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Address of the TCP peer. Behind a gateway of another network it is the gateway's.
    pub source: IpAddr,
    /// The application's own address and port: not a service's, not port 15008.
    pub destination: SocketAddr,
    /// Identity that the peer proved with its certificate; none: plain text.
    pub identity: Option<Identity>,
}
