//! Third step: evaluates L4 authorization policy; see `policy`. It closes nothing.

use identity::Identity;
use model::Workload;
use policy::{Connection, ConnectionRegistry, Decision, DenyReason, Registration};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A connection that policy denies.
#[derive(Debug, thiserror::Error)]
#[error("connection closed due to policy rejection: {reason}")]
pub struct Denied {
    pub reason: DenyReason,
}

/// Registers an inbound connection that policies allow, for as long as they do; see [`Registration::revoked`].
pub fn inbound(
    policies: &ConnectionRegistry,
    local: &Arc<Workload>,
    source: IpAddr,
    identity: Option<Identity>,
    destination: SocketAddr,
) -> Result<Registration, Denied> {
    // Registered before it is evaluated: an update in between evaluates it again, so none can be missed.
    let registration = policies.register(Connection { source, destination, identity }, local.clone());
    match registration.evaluate() {
        Decision::Allow { .. } => Ok(registration),
        Decision::Deny { reason, .. } => Err(Denied { reason }),
    }
}
