//! CONNECT over HTTP/2 over TLS: tunnels, streams, and the pool that shares tunnels.
//!
//! One stream of a tunnel carries one application connection. This crate knows nothing of workloads,
//! policies or sockets: it runs over any byte stream, and its caller dials, authorises and relays.
//!
//! Everything here belongs to one thread (a worker with a current-thread runtime and a `LocalSet`):
//! counters are `Cell`s, and a tunnel's driver is a local task.

pub mod client;
mod error;
pub mod headers;
mod io;
pub mod pool;
pub mod server;
#[cfg(test)]
mod sizes;
mod stream;

pub use client::{Accepted, Driver, Tunnel};
pub use error::{ConnectError, StreamError, TunnelError};
pub use http2::{Flood, Reason, Settings};
pub use io::StreamIo;
pub use pool::Pool;
pub use server::{Request, Server};
pub use stream::{RecvHalf, SendHalf, Stream};
