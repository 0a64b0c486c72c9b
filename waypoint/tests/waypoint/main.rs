//! A waypoint in this process between real peers: clients that open tunnels over TLS, node proxies that take them, and servers
//! on loopback.

mod common;
mod failures;
mod messages;
mod policies;
mod requests;
mod tokens;
mod tunnels;
