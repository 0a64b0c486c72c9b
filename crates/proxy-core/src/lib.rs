//! Parts that every proxy is made of. A program (the node proxy, the waypoint) adds its own listeners, the steps of its
//! connections and its own settings.
//!
//! It carries no byte of a connection itself.

pub mod admin;
pub mod budget;
pub mod certificate;
pub mod config;
pub mod discovery;
pub mod process;
mod tls_configs;
mod tunnel_socket;
pub mod validity;
pub mod workers;

pub use tls_configs::TlsConfigs;
pub use tunnel_socket::TunnelSocket;
