//! Configuration of the waypoint's services as one immutable value. A request reads it once and keeps it until its end, so a
//! change never mixes two versions in one request. Workloads and endpoints are not in it; see `model`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::Text;
use route::PortRoutes;

/// Everything that the control plane has said about the services of this waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By host name. A service that is not here is not served.
    pub services: HashMap<Text, Arc<ServiceConfig>>,
    /// Policies for every service and workload of the waypoint.
    pub policies: Policies,
}

/// Configuration of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// By service port. A port that is not here is not served.
    pub ports: BTreeMap<u16, PortConfig>,
    /// Policies that target the service.
    pub policies: Policies,
}

/// Configuration of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortConfig {
    pub protocol: AppProtocol,
    /// Used for HTTP. TCP goes to the service's own endpoints.
    pub routes: PortRoutes,
}

impl PortConfig {
    /// Returns true if a user has made routes for the port, not only the default of a service without any.
    pub fn has_user_routes(&self) -> bool {
        let tables = std::iter::once(&self.routes.routes).chain(self.routes.consumers.values());
        tables.flat_map(|table| table.routes()).any(|route| !route.origin.kind.is_empty())
    }
}

/// Protocol of applications, as `appProtocol` or the name of a port declares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Not declared: the first bytes of each connection decide.
    #[default]
    Undeclared,
    Http1,
    /// HTTP/2 with prior knowledge, also gRPC.
    Http2,
    /// Any that is not HTTP in plain text.
    Tcp,
}

/// Policies in front of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Names of policies that this version of the waypoint cannot evaluate. One is enough to deny every request and
    /// connection: what a user has ordered is enforced or refused, never skipped.
    pub unsupported: Vec<Text>,
}

/// The snapshot in force, shared by all workers.
pub type Current = ArcSwap<Snapshot>;

impl Snapshot {
    /// Configuration of a port, with that of its service.
    pub fn port(&self, host: &str, port: u16) -> Option<(&ServiceConfig, &PortConfig)> {
        let service = self.services.get(host)?;
        Some((service, service.ports.get(&port)?))
    }
}

impl Policies {
    /// Returns true if every request is allowed.
    pub fn is_empty(&self) -> bool {
        self.unsupported.is_empty()
    }
}
