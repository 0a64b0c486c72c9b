//! What the control plane learns about its clients.

use identity::Caller;

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Number of the connection, unique in this process.
    pub connection: u64,
    /// Who it is, proven by its token.
    pub caller: Caller,
    /// What it calls itself (`ztunnel~<ip>~<pod>.<ns>~<domain>`); proven by nothing.
    pub node_id: String,
}

/// Something a client did. The hook that takes reports runs on the connection's task: it must not block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its first request arrived.
    Connected { peer: Peer },
    /// It has taken over a response.
    Acked { peer: Peer, type_url: String, nonce: String },
    /// It has refused resources of a response; it keeps what it had of those and takes the others.
    Nacked { peer: Peer, type_url: String, nonce: String, error: String },
    /// The connection is over.
    Disconnected { peer: Peer },
}
