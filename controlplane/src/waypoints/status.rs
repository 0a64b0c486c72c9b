//! Status of a Gateway, as a function of what is known. It writes nothing.
//!
//! Addresses appear when a pod is ready for the first time, and stay from then on: an object that is bound to a waypoint is not
//! let past it because the waypoint is down.

use kube_types::core::{Condition, Service};
use kube_types::gateway::{Gateway, GatewayAddress, GatewayStatus, ListenerStatus};
use waypoint_manifests::{Problem, ProblemReason, is_unmanaged, names};

use super::view::Snapshot;
use crate::conditions::with_times;

/// Result of the attempt to make what serves a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its objects are there as they should be, or, with a directory, are somebody else's to make.
    Made,
    /// The Gateway or its overlays have mistakes; nothing was made or changed.
    Invalid(Vec<Problem>),
    /// It cannot be made until somebody changes something.
    Blocked(String),
    /// It was not made, and is tried again.
    Failed(String),
}

/// A state in words: holds, reason, message.
type State = (Option<bool>, &'static str, String);

/// The status that a Gateway of this controller should have, with the time `now` where a condition changes.
pub(super) fn status(snapshot: &Snapshot, outcome: &Outcome, domain: &str, now: &str) -> GatewayStatus {
    let gateway = &*snapshot.gateway;
    let old = &gateway.status;
    let accepted = accepted(outcome);
    let programmed = programmed(snapshot, outcome);
    let generation = gateway.metadata.generation;
    let condition = |name: &str, (holds, reason, message): &State| Condition {
        r#type: name.to_owned(),
        status: holds.map(Into::into).unwrap_or_default(),
        reason: Some((*reason).to_owned()),
        message: Some(message.clone()),
        observed_generation: generation,
        ..Condition::default()
    };
    let is_ready = programmed.0 == Some(true);
    let addresses = if is_unmanaged(gateway) {
        gateway.spec.addresses.clone()
    } else if is_ready && let Some(service) = &snapshot.service {
        addresses(gateway, service, domain)
    } else {
        old.addresses.clone()
    };
    let listeners = gateway.spec.listeners.iter().map(|listener| {
        let old = old.listeners.iter().find(|old| old.name == listener.name);
        let resolved = (Some(true), "ResolvedRefs", "no references".to_owned());
        let conflicted = (Some(false), "NoConflicts", "no conflicts".to_owned());
        let conditions = vec![
            condition("Accepted", &of_listener(outcome, &accepted)),
            condition("Conflicted", &conflicted),
            condition("Programmed", &programmed),
            condition("ResolvedRefs", &resolved),
        ];
        ListenerStatus {
            name: listener.name.clone(),
            // Routes attach to Services, whose connections come through the waypoint, and none to its listener.
            attached_routes: 0,
            supported_kinds: Vec::new(),
            conditions: with_times(conditions, old.map(|old| old.conditions.as_slice()).unwrap_or_default(), now),
        }
    });
    let conditions = vec![condition("Accepted", &accepted), condition("Programmed", &programmed)];
    GatewayStatus {
        addresses,
        listeners: listeners.collect(),
        conditions: with_times(conditions, &old.conditions, now),
    }
}

fn accepted(outcome: &Outcome) -> State {
    let Outcome::Invalid(problems) = outcome else {
        return (Some(true), "Accepted", "the Gateway is a waypoint".to_owned());
    };
    // The first in the order of what has to be corrected first.
    let reason = problems.iter().map(|problem| problem.reason).min().unwrap_or(ProblemReason::Invalid);
    (Some(false), reason.name(), texts(problems))
}

/// A listener is refused for its own mistakes only.
fn of_listener(outcome: &Outcome, accepted: &State) -> State {
    let Outcome::Invalid(problems) = outcome else { return (Some(true), "Accepted", accepted.2.clone()) };
    let own: Vec<_> = problems.iter().filter(|problem| problem.reason == ProblemReason::Listeners).cloned().collect();
    if own.is_empty() {
        (Some(true), "Accepted", "the listener is one of a waypoint".to_owned())
    } else {
        (Some(false), "UnsupportedProtocol", texts(&own))
    }
}

fn texts(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn programmed(snapshot: &Snapshot, outcome: &Outcome) -> State {
    let serves = serves(snapshot);
    // What runs already serves, whatever could not be made or changed: an object that may go past a waypoint that is not
    // ready must not do so because of that.
    let otherwise = |reason: &'static str, text: &String| match &serves {
        (Some(true), ready, message) => (Some(true), *ready, format!("{message}; {text}")),
        (Some(false) | None, ..) => (Some(false), reason, text.clone()),
    };
    match outcome {
        Outcome::Invalid(_) => otherwise("Invalid", &"the Gateway is not accepted".to_owned()),
        Outcome::Blocked(text) => otherwise("NoResources", text),
        Outcome::Failed(text) => otherwise("Pending", text),
        Outcome::Made => serves,
    }
}

/// The state of what serves the Gateway, whoever has made it.
fn serves(snapshot: &Snapshot) -> State {
    let gateway = &*snapshot.gateway;
    let namespace = &gateway.metadata.namespace;
    if is_unmanaged(gateway) {
        let message = "spec.addresses names a waypoint that its user runs; whether it is ready is not known".to_owned();
        return (None, "Pending", message);
    }
    let Some(service) = &snapshot.service else {
        let message = format!("Service {namespace}/{} does not exist", names(gateway).workload);
        return (Some(false), "AddressNotAssigned", message);
    };
    if service.spec.addresses().next().is_none() {
        let message = format!("Service {namespace}/{} has no address", service.metadata.name);
        return (Some(false), "AddressNotAssigned", message);
    }
    match (snapshot.ready_pods, snapshot.pods) {
        (0, 0) => (Some(false), "Pending", "no pod of the waypoint exists".to_owned()),
        (0, all) => (Some(false), "Pending", format!("0 of {all} pods are ready")),
        // A pod says so when it has its certificate and its first configuration.
        (ready, all) => (Some(true), "Programmed", format!("{ready} of {all} pods are ready")),
    }
}

/// The name of the Service before its addresses: these may change.
fn addresses(gateway: &Gateway, service: &Service, domain: &str) -> Vec<GatewayAddress> {
    let address = |kind: &str, value: String| GatewayAddress { r#type: Some(kind.to_owned()), value };
    let name = format!("{}.{}.svc.{domain}", service.metadata.name, gateway.metadata.namespace);
    let ips = service.spec.addresses().map(|ip| address("IPAddress", ip.to_owned()));
    [address("Hostname", name)].into_iter().chain(ips).collect()
}
