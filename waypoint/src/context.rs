//! Parts that the path of a request needs: those of the process, and those of one worker, of which nothing is shared between
//! threads.

use std::cell::Cell;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ca_client::CertificateManager;
use hbone::Settings;
use hbone::pool::Limits;
use identity::Identity;
use jwt::KeyStore;
use model::State;
use model::view::WaypointTarget;
use proxy_core::TlsConfigs;
use proxy_core::budget::{Budgets, Member, Usage};
use proxy_core::workers::{Tasks, WorkerHandles};
use runtime::Budget;
use runtime::drain::Watch;
use waypoint_config::{AppProtocol, Handle};

use crate::http::Authenticators;
use crate::inner::detection_time;
use crate::report::{AccessLog, Series};
use crate::upstream::{Connections, DialError, EndpointCache, TunnelKey};
use crate::workers::Command;

/// Handshakes under way on a worker, with peers that have proved nothing yet. Others wait.
pub const HANDSHAKES: usize = 1024;
/// Handshakes of one client address.
pub const SOURCE_HANDSHAKES: usize = 64;
/// Tunnels of a worker.
pub const TUNNELS: usize = 8192;
/// Tunnels of one client address on a worker.
pub const SOURCE_TUNNELS: usize = 512;

/// Parts of the process.
pub struct Shared {
    /// The waypoint's own; every replica has the same.
    pub identity: Identity,
    pub state: State,
    pub certificates: CertificateManager,
    pub tunnels: Settings,
    pub pool_limits: Limits,
    pub budgets: Arc<Budgets>,
    pub usage: Arc<Usage>,
    pub drain: Watch,
    pub config: Handle,
    /// Keys of the issuers of tokens.
    pub keys: KeyStore,
    /// `None`: no access log.
    pub access_log: Option<AccessLog>,
}

/// Parts of one worker.
pub struct WorkerContext {
    pub shared: Arc<Shared>,
    pub handles: WorkerHandles<Command>,
    pub tls: TlsConfigs,
    /// Tunnels to endpoints.
    pub tunnels: hbone::Pool<TunnelKey, DialError>,
    /// HTTP connections to endpoints, in those tunnels or in plain text.
    pub connections: Connections,
    pub endpoints: EndpointCache,
    pub series: Series,
    pub authenticators: Authenticators,
    /// Tunnels and connections of clients.
    pub clients: Tasks,
    /// Copies of requests.
    pub mirrors: Tasks,
    /// Bytes of requests that are kept for further tries and for mirrors.
    pub kept_bytes: Rc<Cell<usize>>,
    pub handshakes: Budget<IpAddr>,
    pub client_tunnels: Budget<IpAddr>,
    /// True while connections are cut, as the deadline of the drain has passed.
    pub is_cut: Cell<bool>,
    _member: Member,
}

impl Shared {
    /// Protocol of a target, and the time for its detection where it is not declared.
    pub fn protocol(&self, target: &WaypointTarget) -> (AppProtocol, Option<Duration>) {
        let config = self.config.load();
        let is_guarded = !config.gateway.policies.is_empty();
        let (protocol, has_rules) = match target {
            WaypointTarget::Service { service, port } => match config.port(&service.key(), *port) {
                Some((service, port)) => {
                    (port.protocol, is_guarded || port.has_user_routes() || !service.policies.is_empty())
                }
                None => (AppProtocol::Undeclared, true),
            },
            WaypointTarget::Workload { .. } => (AppProtocol::Undeclared, is_guarded),
        };
        (protocol, detection_time(has_rules))
    }
}

impl WorkerContext {
    /// A worker that carries nothing yet.
    pub fn new(shared: Arc<Shared>, handles: WorkerHandles<Command>) -> Self {
        let member = shared.budgets.enter();
        Self {
            handles,
            tls: TlsConfigs::default(),
            tunnels: hbone::Pool::new(shared.pool_limits),
            connections: Connections::default(),
            endpoints: EndpointCache::new(shared.state.clone()),
            series: Series::default(),
            authenticators: Authenticators::default(),
            clients: Tasks::default(),
            mirrors: Tasks::default(),
            kept_bytes: Rc::default(),
            handshakes: Budget::new(HANDSHAKES, SOURCE_HANDSHAKES),
            client_tunnels: Budget::new(TUNNELS, SOURCE_TUNNELS),
            is_cut: Cell::new(false),
            _member: member,
            shared,
        }
    }
}

impl fmt::Debug for WorkerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerContext")
    }
}
