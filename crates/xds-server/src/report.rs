//! Facts that the control plane learns about its clients.

use std::sync::Arc;

use identity::Caller;

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Number of the connection, unique in this process.
    pub connection: u64,
    /// Identity, proven by its token.
    pub caller: Caller,
    /// Name that it gives itself (`ztunnel~<ip>~<pod>.<ns>~<domain>`); proven by nothing.
    pub node_id: String,
    /// Version that it gives itself (`ISTIO_VERSION` of its metadata), empty if none; proven by nothing.
    pub version: String,
}

/// Names and versions of resources.
pub type Versions = Vec<(Arc<str>, Arc<str>)>;

/// Something a client did or was told. The hook that takes reports runs on the connection's task: it must not block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its first request arrived.
    Connected { peer: Peer },
    /// The client holds these already, of an earlier connection, in the version that is served.
    // Counts as acknowledged: the client has applied these before, or it would not name their versions.
    Holds { peer: Peer, type_url: String, resources: Versions },
    /// A response is about to be sent. What it answers, if anything, has the same nonce.
    Sent { peer: Peer, type_url: String, nonce: String, resources: Versions, removed: Vec<Arc<str>> },
    /// The client has acknowledged a response.
    Acked { peer: Peer, type_url: String, nonce: String },
    /// The client has refused resources of a response; it keeps what it had of those and takes the others.
    Nacked { peer: Peer, type_url: String, nonce: String, error: String },
    /// The connection is over.
    Disconnected { peer: Peer },
}

impl Report {
    /// Client that the report is about.
    pub const fn peer(&self) -> &Peer {
        match self {
            Self::Connected { peer }
            | Self::Holds { peer, .. }
            | Self::Sent { peer, .. }
            | Self::Acked { peer, .. }
            | Self::Nacked { peer, .. }
            | Self::Disconnected { peer } => peer,
        }
    }
}
