//! Bytes that a connection has carried so far, and when they are added to the metrics.

use std::cell::Cell;
use std::sync::Arc;
use telemetry::metrics::TrafficHandles;

/// Bytes carried so far. They are added to the metrics once a second, every `flush_bytes`, and at the end.
#[derive(Debug)]
pub struct Counts {
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    /// Part of both that the metrics have.
    flushed: Cell<Totals>,
    flush_bytes: u64,
    traffic: Arc<TrafficHandles>,
}

/// Bytes in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// From the side that connected to the side that accepted.
    pub to_server: u64,
    /// Back.
    pub to_client: u64,
}

/// Counts the bytes of one direction.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct ByteCounter<'a> {
    counts: &'a Counts,
    bytes: &'a Cell<u64>,
}

impl ByteCounter<'_> {
    pub(in crate::proxy) fn add(self, n: usize) {
        self.bytes.set(self.bytes.get() + n as u64);
        if self.counts.unflushed() >= self.counts.flush_bytes {
            self.counts.flush();
        }
    }
}

impl Counts {
    /// Adds to `traffic` after every `flush_bytes`.
    pub fn new(flush_bytes: u64, traffic: Arc<TrafficHandles>) -> Self {
        let zero = || Cell::new(0);
        Self { to_server: zero(), to_client: zero(), flushed: Cell::default(), flush_bytes, traffic }
    }

    /// Returns the bytes carried so far.
    pub fn totals(&self) -> Totals {
        Totals { to_server: self.to_server.get(), to_client: self.to_client.get() }
    }

    /// Adds to the metrics what they do not have yet.
    pub fn flush(&self) {
        let (now, before) = (self.totals(), self.flushed.get());
        // Most connections are idle at most flushes: they must not keep their series from expiring.
        if now == before {
            return;
        }
        self.flushed.set(now);
        self.traffic.bytes(now.to_server - before.to_server, now.to_client - before.to_client);
    }

    /// Returns the number of bytes that the metrics do not have yet.
    pub fn unflushed(&self) -> u64 {
        let (now, before) = (self.totals(), self.flushed.get());
        now.to_server + now.to_client - before.to_server - before.to_client
    }

    /// Counter of the bytes from client to server.
    pub(in crate::proxy) const fn to_server(&self) -> ByteCounter<'_> {
        ByteCounter { counts: self, bytes: &self.to_server }
    }

    /// Counter of the bytes from server to client.
    pub(in crate::proxy) const fn to_client(&self) -> ByteCounter<'_> {
        ByteCounter { counts: self, bytes: &self.to_client }
    }
}
