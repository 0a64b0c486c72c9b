//! An accepted connection, as a worker gives it to the path.

use crate::budget::Descriptors;
use crate::inpod::ListenerKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;

/// An accepted connection on its worker, before its first byte.
pub struct Connection {
    pub kind: ListenerKind,
    pub socket: TcpStream,
    pub peer: SocketAddr,
    /// May the client's address be used?
    pub transparent: bool,
    /// Counts it as long as it lives.
    pub load: Load,
    /// What it may open, itself included.
    pub descriptors: Descriptors,
}

/// Number of connections that a worker carries. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LoadCounter(Arc<AtomicUsize>);

impl LoadCounter {
    /// Connections at present.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one more until the result is dropped.
    pub fn add(&self) -> Load {
        self.0.fetch_add(1, Ordering::Relaxed);
        Load(self.0.clone())
    }
}

/// One connection of a worker, as long as it lives.
#[derive(Debug)]
pub struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
