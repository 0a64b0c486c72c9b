//! The open connections of a pod, for the dump. Nothing decides by them.

use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use telemetry::{Direction, Protocol};

/// One open connection.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionEntry {
    #[serde(rename = "src")]
    pub client: SocketAddr,
    /// Inbound: the service that the client asked for. Outbound: the address it asked for.
    pub original_dst: Option<String>,
    pub actual_dst: SocketAddr,
    pub protocol: Protocol,
    #[serde(skip)]
    pub direction: Direction,
}

/// Open connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    entries: HashMap<u64, ConnectionEntry>,
}

/// Keeps an entry listed.
#[derive(Debug)]
pub struct Listed {
    connections: Connections,
    number: u64,
}

impl Connections {
    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.0.lock())
    }

    /// Lists a connection until the result is dropped.
    pub fn list(&self, entry: ConnectionEntry) -> Listed {
        let number = self.with(|e| {
            e.next += 1;
            e.entries.insert(e.next, entry);
            e.next
        });
        Listed { connections: self.clone(), number }
    }

    /// Returns the connections that are listed now.
    pub fn snapshot(&self) -> Vec<ConnectionEntry> {
        self.with(|e| e.entries.values().cloned().collect())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.with(|e| e.entries.remove(&self.number));
    }
}
