//! Third step: may this connection be? Policies decide; see `policy`. It closes nothing.

use identity::Identity;
use model::Workload;
use policy::{Connection, ConnectionRegistry, Decision, DenyReason, Registration};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A policy says no.
#[derive(Debug, thiserror::Error)]
#[error("connection closed due to policy rejection: {reason}")]
pub struct Denied {
    pub reason: DenyReason,
}

/// Allows an inbound connection for as long as policies do; see [`Registration::revoked`].
pub fn inbound(
    policies: &ConnectionRegistry,
    local: &Arc<Workload>,
    source: IpAddr,
    identity: Option<Identity>,
    destination: SocketAddr,
) -> Result<Registration, Denied> {
    // First the registry, then the question: no update can slip between.
    let registration = policies.register(Connection { source, destination, identity }, local.clone());
    match registration.evaluate() {
        Decision::Allow { .. } => Ok(registration),
        Decision::Deny { reason, .. } => Err(Denied { reason }),
    }
}
