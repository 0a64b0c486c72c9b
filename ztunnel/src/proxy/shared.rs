//! Parts that all connections of the process share. Read through handles; nothing of it is locked across a wait.

use super::resolve::Names;
use ca_client::CertificateManager;
use hbone::Settings;
use hbone::pool::Limits;
use model::State;
use policy::ConnectionRegistry;
use proxy_core::budget::Budgets;
use proxy_core::discovery::Lookups;
use runtime::drain::Watch;
use std::sync::Arc;

/// Handles to everything a connection asks.
pub struct Shared {
    pub state: State,
    pub certificates: CertificateManager,
    pub policies: ConnectionRegistry,
    /// Asks discovery about addresses that it has not announced.
    pub lookups: Lookups,
    pub names: Names,
    pub tunnels: Settings,
    pub pool_limits: Limits,
    /// Budgets of all pods together.
    pub budgets: Arc<Budgets>,
    pub drain: Watch,
    /// Connections through a PROXY tunnel are delivered to loopback.
    pub localhost_app_tunnel: bool,
    /// Attempts to connect to other endpoints of a service, after the first one has failed.
    pub connect_retries: u8,
    /// Responses to CONNECT describe the pod in `baggage`.
    pub response_baggage: bool,
}
