//! What a connection has carried so far, and when the metrics hear of it.

use std::cell::Cell;
use std::sync::Arc;
use telemetry::metrics::TrafficHandles;

/// Bytes carried so far. The metrics hear of them now and then, and at the end.
#[derive(Debug)]
pub struct Counts {
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    flushed: Cell<(u64, u64)>,
    flush_bytes: u64,
    traffic: Arc<TrafficHandles>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) enum Way {
    ToServer,
    ToClient,
}

impl Way {
    pub(super) const fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

impl Counts {
    /// Tells `traffic` about every `flush_bytes`.
    pub fn new(flush_bytes: u64, traffic: Arc<TrafficHandles>) -> Self {
        let zero = || Cell::new(0);
        Self { to_server: zero(), to_client: zero(), flushed: Cell::new((0, 0)), flush_bytes, traffic }
    }

    /// From the side that connected to the side that accepted, and back.
    pub fn totals(&self) -> (u64, u64) {
        (self.to_server.get(), self.to_client.get())
    }

    /// Tells the metrics what they have not heard yet.
    pub fn flush(&self) {
        let (now, before) = (self.totals(), self.flushed.get());
        if now == before {
            return;
        }
        self.flushed.set(now);
        self.traffic.bytes(now.0 - before.0, now.1 - before.1);
    }

    /// Bytes that the metrics have not heard of.
    pub fn unflushed(&self) -> u64 {
        let (now, before) = (self.totals(), self.flushed.get());
        now.0 + now.1 - before.0 - before.1
    }

    pub(in crate::proxy) fn add(&self, way: Way, n: usize) {
        let count = match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        };
        count.set(count.get() + n as u64);
        if self.unflushed() >= self.flush_bytes {
            self.flush();
        }
    }
}
