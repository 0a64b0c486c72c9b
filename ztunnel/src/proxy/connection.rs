//! An accepted connection, as a worker gives it to the path.

use crate::inpod::ListenerKind;
use proxy_core::budget::Descriptors;
use proxy_core::workers::Load;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// An accepted connection on its worker, before its first byte.
pub struct Connection {
    /// Listener that accepted it.
    pub kind: ListenerKind,
    pub socket: TcpStream,
    pub client: SocketAddr,
    /// The client's address may be used towards the application.
    pub transparent: bool,
    /// Counts it as long as it lives.
    pub load: Load,
    /// Descriptors that it may open, itself included.
    pub descriptors: Descriptors,
}
