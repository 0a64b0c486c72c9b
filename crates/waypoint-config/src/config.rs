//! Configuration as a request reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jwt::JwtRule;
use model::NamespacedHostname;
use policy::http::{HttpPolicy, Provider};
use route::PortRoutes;
use serde::Serialize;

/// Everything that a waypoint needs besides workloads and services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// A service that is not here is not served.
    pub services: HashMap<NamespacedHostname, Arc<ServiceConfig>>,
    /// Settings for every service and workload of the waypoint.
    pub gateway: Arc<GatewayConfig>,
}

/// Configuration of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceConfig {
    /// By port of the service. A port that is not here is not served.
    pub ports: BTreeMap<u16, PortConfig>,
    /// Policies that target the service.
    pub policies: Policies,
}

/// Configuration of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortConfig {
    pub protocol: AppProtocol,
    /// Used for HTTP. TCP goes to the service's own endpoints.
    pub routes: PortRoutes,
}

/// Protocol of an application, as `appProtocol` or the name of a port declares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
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

/// Policies on requests and rules for their tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    pub http: Vec<HttpPolicy>,
    pub jwt: Vec<JwtRule>,
}

/// Settings for every service and workload of a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayConfig {
    /// Policies that target the gateway, its class, or all namespaces.
    pub policies: Policies,
    /// External authorizers that policies may name.
    pub providers: Vec<Provider>,
}

impl Config {
    /// Configuration of a port, with that of its service.
    pub fn port(&self, service: &NamespacedHostname, port: u16) -> Option<(&ServiceConfig, &PortConfig)> {
        let service = self.services.get(service)?;
        Some((service, service.ports.get(&port)?))
    }
}

impl PortConfig {
    /// Returns true if a user has made routes for the port, not only the default of a service without any.
    pub fn has_user_routes(&self) -> bool {
        let tables = std::iter::once(&self.routes.routes).chain(self.routes.consumers.values());
        tables.flat_map(|table| table.routes()).any(|route| !route.origin.kind.is_empty())
    }
}

impl Policies {
    /// Returns true if there are none.
    pub const fn is_empty(&self) -> bool {
        self.http.is_empty() && self.jwt.is_empty()
    }
}
