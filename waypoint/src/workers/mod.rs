//! The workers of the waypoint: each accepts tunnels on a listener of its own, and serves connections of its own tunnels and of
//! others'.

mod accept;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use proxy_core::workers::{Load, Workers};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use crate::context::{Shared, WorkerContext};
use crate::inner::ChannelIo;
use crate::tunnel::Opened;

use worker::Worker;

/// Connections that the kernel completes for a listener before they are accepted.
const BACKLOG: i32 = 4096;

/// Commands to a worker.
pub enum Command {
    /// Accept tunnels.
    Listen { listener: TcpListener, done: oneshot::Sender<io::Result<()>> },
    /// Serve a connection whose tunnel another worker carries.
    Serve(Handover),
}

/// A connection that is handed to another worker.
pub struct Handover {
    pub opened: Opened,
    pub io: ChannelIo,
    /// Counts it for the worker that gets it.
    pub load: Load,
}

/// All workers of the waypoint. They end when this is dropped.
pub struct WaypointWorkers(Workers<Command>);

impl WaypointWorkers {
    /// Starts `count` threads, named `waypoint-<n>`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let shared = shared.clone();
        let workers =
            Workers::start("waypoint", count, move |handles| Worker::new(WorkerContext::new(shared.clone(), handles)));
        workers.map(Self)
    }

    /// The threads.
    pub const fn threads(&self) -> &Workers<Command> {
        &self.0
    }

    /// Accepts tunnels at `address` on every worker, and returns the address: the kernel spreads connections over listeners of
    /// one port.
    ///
    /// # Errors
    /// When the address cannot be bound, or a worker does not answer.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let first = bind(address)?;
        let bound = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..self.0.count() {
            listeners.push(bind(bound)?);
        }
        for (index, listener) in listeners.into_iter().enumerate() {
            self.0.ask(index, |done| Command::Listen { listener, done }).await??;
        }
        Ok(bound)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // IPv4 clients come to the wildcard too.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
