//! From a Gateway to its objects.

use contract::labels::{
    GATEWAY_NAME_OVERRIDE_ANNOTATION, GATEWAY_SERVICE_ACCOUNT_ANNOTATION, GATEWAY_SERVICE_TYPE_ANNOTATION,
};
use contract::ports;
use kube_types::gateway::Gateway;

use crate::overlays::Overlays;
use crate::parts::{Base, Part, PartKind, kept_labels, tell_grace, without_empty};
use crate::problem::{Problem, ProblemReason};
use crate::settings::Settings;

/// Protocol of a waypoint's listener.
const HBONE: &str = "HBONE";

/// Longest name of a Service, and longest value of a label.
const MAX_LABEL: usize = 63;

/// Types that the Service may have. A waypoint is for the mesh: a load balancer outside has no use for it, but somebody may
/// have a tunnel through one.
const SERVICE_TYPES: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];

/// Names of the objects of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of the Service, the Deployment and what belongs to it: the Gateway's, or that of its annotation.
    pub workload: String,
    /// The Gateway's name: by its identity the control plane knows whose configuration a waypoint gets.
    pub account: String,
}

/// The names of a Gateway's objects.
pub fn names(gateway: &Gateway) -> Names {
    let name = &gateway.metadata.name;
    let other = gateway.metadata.annotations.get(GATEWAY_NAME_OVERRIDE_ANNOTATION).filter(|name| !name.is_empty());
    Names { workload: other.unwrap_or(name).clone(), account: name.clone() }
}

/// Mistakes of a Gateway for a waypoint, without its overlays.
pub fn validate(gateway: &Gateway) -> Vec<Problem> {
    let mut problems = Vec::new();
    match gateway.spec.listeners.as_slice() {
        [listener] if listener.protocol == HBONE && listener.port == ports::HBONE => {}
        [listener] => {
            let found = format!("{}/{}", listener.protocol, listener.port);
            let text = format!("found {found}, expected {HBONE}/{}", ports::HBONE);
            problems.push(Problem::new(ProblemReason::Listeners, format!("spec.listeners[{}]", listener.name), text));
        }
        listeners => {
            let text =
                format!("found {} listeners, expected one, of {HBONE} on port {}", listeners.len(), ports::HBONE);
            problems.push(Problem::new(ProblemReason::Listeners, "spec.listeners", text));
        }
    }
    let Names { workload, account } = names(gateway);
    let name = &gateway.metadata.name;
    if name.len() > MAX_LABEL {
        let text = format!("{} characters, expected at most {MAX_LABEL}: it is the value of a label", name.len());
        problems.push(Problem::new(ProblemReason::Invalid, "metadata.name", text));
    } else if !is_label(&workload) {
        let text = format!(
            "{workload:?} cannot be the name of a Service: expected at most {MAX_LABEL} of a-z, 0-9 and -, a letter first; the annotation {GATEWAY_NAME_OVERRIDE_ANNOTATION} sets another one"
        );
        problems.push(Problem::new(ProblemReason::Invalid, "metadata.name", text));
    }
    if let Some(found) =
        gateway.metadata.annotations.get(GATEWAY_SERVICE_ACCOUNT_ANNOTATION).filter(|it| **it != account)
    {
        let text = format!(
            "found {found:?}, expected {account:?}: a waypoint is known by its ServiceAccount, which has the name of the Gateway"
        );
        let field = format!("metadata.annotations[{GATEWAY_SERVICE_ACCOUNT_ANNOTATION:?}]");
        problems.push(Problem::new(ProblemReason::Invalid, field, text));
    }
    if !SERVICE_TYPES.contains(&service_type(gateway)) {
        let text = format!("found {:?}, expected one of {}", service_type(gateway), SERVICE_TYPES.join(", "));
        let field = format!("metadata.annotations[{GATEWAY_SERVICE_TYPE_ANNOTATION:?}]");
        problems.push(Problem::new(ProblemReason::Invalid, field, text));
    }
    if let Some(infrastructure) = &gateway.spec.infrastructure {
        for label in kept_labels().into_iter().filter(|label| infrastructure.labels.contains_key(*label)) {
            let field = format!("spec.infrastructure.labels[{label:?}]");
            let text = "is the controller's and cannot be set";
            problems.push(Problem::new(ProblemReason::Parameters, field, text));
        }
    }
    problems
}

/// The objects of a Gateway, in the order in which they are applied.
///
/// # Errors
/// Every mistake of the Gateway and of the overlays.
pub fn render(gateway: &Gateway, overlays: &Overlays, settings: &Settings) -> Result<Vec<Part>, Vec<Problem>> {
    let mut problems = validate(gateway);
    let names = names(gateway);
    let base = Base { gateway, names: &names, settings, service_type: service_type(gateway) };
    let labels = kept_labels();
    let mut parts = Vec::new();
    for kind in PartKind::ALL {
        // Only an overlay knows how many pods an autoscaler may make.
        if kind == PartKind::HorizontalPodAutoscaler && !overlays.has(kind) {
            continue;
        }
        let mut object = base.part(kind);
        overlays.lay(kind, &mut object, &labels, &mut problems);
        match kind {
            PartKind::Deployment => {
                tell_grace(&mut object);
                // The autoscaler sets the number; two writers of it would undo each other's.
                if overlays.has(PartKind::HorizontalPodAutoscaler)
                    && let Some(spec) = object["spec"].as_object_mut()
                {
                    spec.remove("replicas");
                }
            }
            PartKind::HorizontalPodAutoscaler if !object["spec"]["maxReplicas"].is_u64() => {
                let text = "spec.maxReplicas is missing: expected the largest number of pods";
                problems.push(Problem::new(ProblemReason::Parameters, "horizontalPodAutoscaler", text));
            }
            PartKind::ServiceAccount
            | PartKind::Service
            | PartKind::PodDisruptionBudget
            | PartKind::HorizontalPodAutoscaler => {}
        }
        parts.push(Part { kind, object: without_empty(object) });
    }
    if problems.is_empty() { Ok(parts) } else { Err(problems) }
}

fn service_type(gateway: &Gateway) -> &str {
    gateway.metadata.annotations.get(GATEWAY_SERVICE_TYPE_ANNOTATION).map_or("ClusterIP", String::as_str)
}

/// A name that a Service may have: a DNS label (RFC 1035), which begins with a letter.
fn is_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=MAX_LABEL).contains(&bytes.len())
        && bytes.iter().all(is_inner)
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|last| *last != b'-')
}
