//! Tunnels of clients: a node proxy connects to port 15008 with the certificate of its pod, and each CONNECT on it is a
//! connection of the pod's application.

mod accept;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use identity::Identity;
use model::Workload;
use model::view::WaypointTarget;

pub use accept::{AcceptError, serve};

/// Client of a connection, as its tunnel has proved and discovery describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Address of the other end of the tunnel: the client's pod.
    pub address: SocketAddr,
    pub identity: Option<Identity>,
    /// The pod with this address, if its identity is the proven one.
    pub workload: Option<Arc<Workload>>,
}

/// A connection of a client's application, accepted and not served yet.
#[derive(Debug, Clone)]
pub struct Opened {
    pub client: Arc<Client>,
    pub target: WaypointTarget,
    /// Address that the client asked for, for policies.
    pub destination: SocketAddr,
    /// Authority of the CONNECT.
    pub original_dst: Arc<str>,
}

impl Client {
    /// Namespace of the proven identity.
    pub fn namespace(&self) -> Option<&str> {
        self.identity.as_ref().map(Identity::namespace)
    }
}
