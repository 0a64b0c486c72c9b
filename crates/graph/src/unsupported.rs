//! Labels and annotations that request what this mesh does not support, so that they are not ignored in silence. The agent
//! reports those about the capture of a pod.

use contract::Unsupported;
use contract::labels::{
    DATAPLANE_MODE_LABEL, GLOBAL_LABEL, INGRESS_USE_WAYPOINT_LABEL, NETWORK_LABEL, PERSISTENT_SESSION_LABEL,
    REVISION_LABEL, SIDECAR_INJECT, TRAFFIC_DISTRIBUTION_ANNOTATION, TUNNEL_LABEL, USE_WAYPOINT_CANARY_LABEL,
    USE_WAYPOINT_CANARY_NAMESPACE_LABEL, USE_WAYPOINT_LABEL, USE_WAYPOINT_NAMESPACE_LABEL, WAYPOINT_FAILURE_CLOSED,
    WAYPOINT_FAILURE_LABEL, WAYPOINT_FAILURE_OPEN, WAYPOINT_FOR_LABEL,
};
use kube_types::similar::nearest;
use kube_types::{Kind, ObjectMeta, ObjectRef};

use crate::finding::{Finding, Reason, Severity};

/// Labels of namespaces, Services and pods, and what happens instead.
const LABELS: [(&str, Reason, &str); 4] = [
    (
        INGRESS_USE_WAYPOINT_LABEL,
        Reason::NeedsWaypoint,
        "no ingress gateway gets its configuration from this control plane; it is announced to node proxies only",
    ),
    (GLOBAL_LABEL, Reason::Unsupported, "there is one cluster, others do not see it"),
    (PERSISTENT_SESSION_LABEL, Reason::Unsupported, "each connection goes to any endpoint"),
    (TUNNEL_LABEL, Reason::Unsupported, "HBONE is announced only for pods that the agent has enrolled"),
];

/// Values that ask for nothing.
const OFF: [&str; 4] = ["", "none", "false", "disabled"];

/// Labels that ask for a sidecar proxy, as the injection of Istio reads them, and the kinds of objects on which it does.
const SIDECAR: [(&str, &[Kind]); 4] = [
    ("istio-injection", &[Kind::Namespace]),
    (REVISION_LABEL, &[Kind::Namespace, Kind::Pod]),
    (SIDECAR_INJECT, &[Kind::Pod]),
    // Another mesh's, which users who migrate leave behind.
    ("linkerd.io/inject", &[Kind::Namespace, Kind::Pod]),
];

/// Labels of which a misspelt one would be ignored.
const KNOWN: [&str; 9] = [
    DATAPLANE_MODE_LABEL,
    USE_WAYPOINT_LABEL,
    USE_WAYPOINT_NAMESPACE_LABEL,
    USE_WAYPOINT_CANARY_LABEL,
    USE_WAYPOINT_CANARY_NAMESPACE_LABEL,
    INGRESS_USE_WAYPOINT_LABEL,
    WAYPOINT_FOR_LABEL,
    GLOBAL_LABEL,
    REVISION_LABEL,
];

/// Ways to write [`DATAPLANE_MODE_LABEL`] that are too different to be found by their letters.
const MODE_ALIASES: [&str; 4] =
    ["ambient.istio.io/mode", "ambient.istio.io/dataplane-mode", "istio.io/ambient", "istio.io/mode"];

const DISTRIBUTIONS: [&str; 4] = ["any", "preferclose", "prefersamezone", "prefersamenode"];

/// Labels and annotations of an object that have no effect.
pub(crate) fn findings(key: &ObjectRef, meta: &ObjectMeta) -> Vec<Finding> {
    // Whoever makes a ServiceEntry knows whether its endpoints have a tunnel; a pod gets one from the agent.
    let labels = LABELS.iter().filter(|(label, _, _)| *label != TUNNEL_LABEL || key.kind == Kind::Pod);
    let asked = labels.filter_map(|(label, reason, instead)| {
        let value = meta.labels.get(*label).filter(|value| !OFF.contains(&value.as_str()))?;
        let unsupported = Unsupported::new(format!("{label}={value}"), *instead);
        Some(Finding::warning(key, *reason, unsupported.to_string()).at(label_path(label)))
    });
    let invalid = mode(key, meta).into_iter().chain(failure_mode(key, meta));
    asked.chain(invalid).chain(sidecar(key, meta)).chain(misspelt(key, meta)).collect()
}

fn label_path(label: &str) -> String {
    format!("metadata.labels[{label:?}]")
}

/// A sidecar that nobody injects. The label of a pod may be an annotation, too.
fn sidecar(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    SIDECAR.iter().filter(|(_, kinds)| kinds.contains(&key.kind)).find_map(|(name, _)| {
        let asks = |value: &&String| !OFF.contains(&value.as_str());
        let label = meta.labels.get(*name).filter(asks).map(|value| (value, label_path(name)));
        // Linkerd's is an annotation, and Istio's injector reads `sidecar.istio.io/inject` as one, too.
        let annotation =
            || meta.annotations.get(*name).filter(asks).map(|value| (value, format!("metadata.annotations[{name:?}]")));
        let (value, path) = label.or_else(annotation)?;
        let whom = if key.kind == Kind::Namespace { "pods of the namespace" } else { "the pod" };
        let instead =
            format!("no sidecar is injected; the label {DATAPLANE_MODE_LABEL}=ambient puts {whom} into the mesh");
        let unsupported = Unsupported::new(format!("{name}={value}"), instead);
        Some(Finding::warning(key, Reason::Unsupported, unsupported.to_string()).at(path))
    })
}

/// Finds a label that is nearly one of [`KNOWN`].
fn misspelt(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    meta.labels.keys().find_map(|label| {
        // Other people's labels may look like these by chance.
        let is_ours = label.split_once('/').is_some_and(|(domain, _)| domain.contains("istio"));
        let is_known = KNOWN.contains(&label.as_str()) || LABELS.iter().any(|(known, _, _)| known == label);
        if is_known || !is_ours {
            return None;
        }
        let alias = MODE_ALIASES.contains(&label.as_str()).then_some(DATAPLANE_MODE_LABEL);
        let meant = alias.or_else(|| nearest(label, KNOWN))?;
        let message = format!("label {label} has no effect; did you mean {meant}?");
        Some(Finding::warning(key, Reason::MisspeltLabel, message).at(label_path(label)))
    })
}

/// An unknown mode: the object counts as if it had no such label.
fn mode(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    let value = meta.labels.get(DATAPLANE_MODE_LABEL).filter(|value| !["ambient", "none"].contains(&value.as_str()))?;
    let message =
        format!("invalid value {value:?} of {DATAPLANE_MODE_LABEL}: expected ambient or none; the label has no effect");
    Some(Finding::warning(key, Reason::InvalidValue, message).at(label_path(DATAPLANE_MODE_LABEL)))
}

/// An unknown failure mode: the object counts as if neither it nor its namespace had the label.
fn failure_mode(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    let modes = [WAYPOINT_FAILURE_CLOSED, WAYPOINT_FAILURE_OPEN];
    let value = meta.labels.get(WAYPOINT_FAILURE_LABEL).filter(|value| !modes.contains(&value.as_str()))?;
    let message = format!(
        "invalid value {value:?} of {WAYPOINT_FAILURE_LABEL}: expected closed or open; connections go to the endpoints directly until the waypoint is ready, and fail when it no longer is"
    );
    Some(Finding::warning(key, Reason::InvalidValue, message).at(label_path(WAYPOINT_FAILURE_LABEL)))
}

/// The network of the cluster, as the namespace of the control plane names it.
pub(crate) fn network(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    let value = meta.labels.get(NETWORK_LABEL).filter(|value| !value.is_empty())?;
    let message = format!(
        "the network of the cluster is {value:?}: every node proxy must be started with NETWORK={value}, or it knows no address of the mesh"
    );
    Some(Finding::new(key, Severity::Info, Reason::Unsupported, message).at(label_path(NETWORK_LABEL)))
}

/// An unknown preference among endpoints.
pub(crate) fn distribution(key: &ObjectRef, meta: &ObjectMeta, field: Option<&str>) -> Option<Finding> {
    let annotation = meta
        .annotations
        .get(TRAFFIC_DISTRIBUTION_ANNOTATION)
        .map(|value| (TRAFFIC_DISTRIBUTION_ANNOTATION, value.as_str()));
    // The field of the Service and the annotation; the first invalid one is reported.
    let mut named = field.map(|value| ("spec.trafficDistribution", value)).into_iter().chain(annotation);
    let is_unknown = |value: &str| !value.is_empty() && !DISTRIBUTIONS.contains(&value.to_ascii_lowercase().as_str());
    let (name, value) = named.find(|(_, value)| is_unknown(value))?;
    let message = format!(
        "invalid value {value:?} of {name}: expected PreferClose, PreferSameZone or PreferSameNode; connections go to any endpoint"
    );
    let path = if name == TRAFFIC_DISTRIBUTION_ANNOTATION {
        format!("metadata.annotations[{name:?}]")
    } else {
        name.to_owned()
    };
    Some(Finding::warning(key, Reason::InvalidValue, message).at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(label: &str, value: &str) -> Vec<Reason> {
        on(Kind::Service, label, value)
    }

    fn on(kind: Kind, label: &str, value: &str) -> Vec<Reason> {
        let mut meta = ObjectMeta::default();
        meta.labels.insert(label.to_owned(), value.to_owned());
        let found = findings(&ObjectRef::new(kind, "app", "web"), &meta);
        found.into_iter().map(|finding| finding.reason).collect()
    }

    #[test]
    fn a_label_that_asks_for_a_sidecar_is_reported_where_injection_would_read_it() {
        assert_eq!(on(Kind::Namespace, "istio-injection", "enabled"), [Reason::Unsupported]);
        assert_eq!(on(Kind::Namespace, "istio-injection", "disabled"), []);
        assert_eq!(on(Kind::Service, "istio-injection", "enabled"), []);
        assert_eq!(on(Kind::Pod, "sidecar.istio.io/inject", "true"), [Reason::Unsupported]);
        assert_eq!(on(Kind::Pod, "sidecar.istio.io/inject", "false"), []);
        assert_eq!(on(Kind::Namespace, "istio.io/rev", "stable"), [Reason::Unsupported]);
        let mut meta = ObjectMeta::default();
        meta.annotations.insert("sidecar.istio.io/inject".to_owned(), "true".to_owned());
        let found = findings(&ObjectRef::new(Kind::Pod, "app", "web"), &meta);
        assert_eq!(found[0].field, "metadata.annotations[\"sidecar.istio.io/inject\"]");
    }

    #[test]
    fn an_unknown_failure_mode_is_reported() {
        assert_eq!(with("strake.io/waypoint-failure-mode", "ajar"), [Reason::InvalidValue]);
        assert_eq!(with("strake.io/waypoint-failure-mode", "open"), []);
    }

    #[test]
    fn a_misspelt_label_is_reported() {
        for label in [
            "istio.io/data-plane-mode",
            "istio.io/dataplanemode",
            "istio.io/dataplane_mode",
            "istio.io/dataplane-mod",
            "ambient.istio.io/dataplane-mode",
            "istio.io/use-waypont",
        ] {
            assert_eq!(on(Kind::Namespace, label, "ambient"), [Reason::MisspeltLabel], "{label}");
        }
        for label in ["service.istio.io/canonical-name", "topology.istio.io/network", "app"] {
            assert_eq!(on(Kind::Pod, label, "x"), [], "{label}");
        }
    }

    #[test]
    fn a_label_that_asks_for_what_is_not_done_is_reported() {
        assert_eq!(with("istio.io/ingress-use-waypoint", "true"), [Reason::NeedsWaypoint]);
        assert_eq!(with("istio.io/use-waypoint", "gate"), []);
        assert_eq!(with("istio.io/global", "true"), [Reason::Unsupported]);
        assert_eq!(with("istio.io/global", "false"), []);
        assert_eq!(with("app", "web"), []);
    }

    #[test]
    fn an_unknown_mode_is_reported() {
        assert_eq!(with(DATAPLANE_MODE_LABEL, "ambeint"), [Reason::InvalidValue]);
        assert_eq!(with(DATAPLANE_MODE_LABEL, "ambient"), []);
        assert_eq!(with(DATAPLANE_MODE_LABEL, "none"), []);
    }

    #[test]
    fn an_unknown_distribution_is_reported() {
        let key = ObjectRef::new(Kind::Service, "app", "web");
        let is_reported = |field: Option<&str>| distribution(&key, &ObjectMeta::default(), field).is_some();

        assert!(is_reported(Some("Nearest")));
        assert!(!is_reported(Some("PreferClose")) && !is_reported(Some("Any")) && !is_reported(None));
    }
}
