//! The agent's half: hands every enrolled pod to the proxies that connect and waits for their answer.
//! It does not find pods or namespaces, and it does not judge a proxy; see [`Incoming::peer`].
//!
//! The newest connection is the one that new pods go to; when it ends, the one before it takes over.
//! Departures go to all. Each connection is served by one task, [`Incoming::serve`].

mod connection;
mod registry;

pub use connection::{Ended, Incoming};
pub use registry::{AddError, ConnectionStatus, DelError, Pod, Registry};

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::Instant;

use crate::packet;

/// Longest wait for a proxy's hello, for its answer to a request, and for it to take a request.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two accepted connections; a proxy that fails in a loop must not keep the agent busy.
pub const ACCEPT_INTERVAL: Duration = Duration::from_millis(200);
/// Requests that wait for one connection. When it is full the caller waits up to [`DEADLINE`], then fails.
pub const QUEUE_DEPTH: usize = 100;

/// Names one connection for as long as the agent runs; a higher number is a newer connection.
/// The default is no connection's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Process that connected, from `SO_PEERCRED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub connection: ConnectionId,
    /// `None` when the process is in a pid namespace that we do not see.
    pub pid: Option<u32>,
    pub uid: u32,
}

/// The listening socket. Connections wait in the kernel until [`Server::accept`] takes them.
pub struct Server {
    listener: UnixListener,
    registry: Registry,
    ids: AtomicU64,
    next_accept: Instant,
}

impl Server {
    /// Listens at `path`, mode 0600; a socket file left there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = packet::listen(path)?;
        Ok(Self { listener, registry: Registry::default(), ids: AtomicU64::new(1), next_accept: Instant::now() })
    }

    /// The pods that are announced to proxies; a handle that can be cloned.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The next proxy that connects, at most one every [`ACCEPT_INTERVAL`]. Nothing is sent to it before [`Incoming::serve`].
    ///
    /// Cancel-safe.
    pub async fn accept(&mut self) -> io::Result<Incoming> {
        // Slept before and not after the accept: the first connection is taken at once.
        tokio::time::sleep_until(self.next_accept).await;
        let socket = packet::accept(&self.listener).await?;
        self.next_accept = Instant::now() + ACCEPT_INTERVAL;
        // After the time was set: a peer that is gone by now has cost an accept, too.
        let (pid, uid) = socket.peer()?;
        let connection = ConnectionId(self.ids.fetch_add(1, Ordering::Relaxed));
        Ok(Incoming::new(socket, Peer { connection, pid, uid }, self.registry.clone()))
    }
}
