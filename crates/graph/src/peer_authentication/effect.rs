//! Effect of a PeerAuthentication, and the parts of it that have none.

use kube_types::istio::{PeerAuthentication, TlsMode};

use super::{mode, selector};
use crate::enforcement::Effect;
use crate::finding::Reason;
use crate::mesh::Mesh;
use crate::outcome::Outcome;

/// Place of a policy among others for the same workloads.
pub(crate) enum Precedence<'a> {
    /// No other policy is before it.
    First,
    /// Another policy, this one, takes precedence.
    Shadowed(&'a PeerAuthentication),
}

/// A part of a policy that has no effect, or another one than it says.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) reason: Reason,
    /// Path of the field.
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

/// Returns the effect of a policy, and its parts that have no effect or another one than they say.
pub(crate) fn effect(mesh: &Mesh, policy: &PeerAuthentication, precedence: Precedence<'_>) -> (Effect, Vec<Loss>) {
    let nothing = |reason, outcome, message: &str| {
        (Effect::nothing(outcome, message), vec![Loss { reason, field: "spec", message: message.to_owned() }])
    };
    if selector(policy).is_some() && policy.metadata.namespace == mesh.root_namespace {
        let message = "selectors are ignored in the root namespace: the policy has no effect";
        return nothing(Reason::Ignored, Outcome::Ignored, message);
    }
    // Before the modes: what the policy sets does not matter when another one decides.
    if let Precedence::Shadowed(other) = precedence {
        let name = &other.metadata.name;
        let why = if other.metadata.creation_timestamp == policy.metadata.creation_timestamp {
            format!("{name} was created at the same time and sorts first by name")
        } else {
            format!("{name} is older and takes precedence")
        };
        return nothing(Reason::Shadowed, Outcome::Shadowed, &format!("ignored: {why}"));
    }
    let mut losses = Vec::new();
    let ports = policy.spec.port_level_mtls.values().any(|port| port.mode != TlsMode::Unset);
    // Istio: `portLevelMtls` needs a selector.
    if ports && selector(policy).is_none() {
        let message = "portLevelMtls requires a selector: its ports use mtls.mode".to_owned();
        losses.push(Loss { reason: Reason::Ignored, field: "spec.portLevelMtls", message });
    }
    // DISABLE would mean that mutual TLS is refused; ztunnel has no such mode, and PERMISSIVE is the nearest.
    let modes = policy.spec.port_level_mtls.values().chain(&policy.spec.mtls);
    if modes.into_iter().any(|port| port.mode == TlsMode::Disable) {
        let message = "DISABLE is treated as PERMISSIVE: workloads in the mesh always accept mutual TLS";
        losses.push(Loss { reason: Reason::Ignored, field: "spec", message: message.to_owned() });
    }
    let own = mode(Some(policy));
    let what = match (own, ports && selector(policy).is_some()) {
        (TlsMode::Strict, false) => "STRICT",
        (TlsMode::Strict, true) => "STRICT with the exceptions of portLevelMtls",
        (TlsMode::Permissive | TlsMode::Disable, false) => "PERMISSIVE (plaintext is accepted)",
        (TlsMode::Permissive | TlsMode::Disable, true) => {
            "PERMISSIVE (plaintext is accepted) with the exceptions of portLevelMtls"
        }
        (TlsMode::Unset, true) => "portLevelMtls",
        (TlsMode::Unset, false) => {
            let message = "mtls.mode is not set: the policy has no effect";
            // With the losses so far: they may be the reason that nothing is set.
            return (Effect::nothing(Outcome::NothingSet, message), losses);
        }
    };
    let how = losses.iter().map(|loss| loss.message.as_str()).collect::<Vec<_>>().join("; ");
    let effect = if how.is_empty() { Effect::whole(what) } else { Effect::partial(what, how) };
    (effect, losses)
}
