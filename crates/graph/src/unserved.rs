//! Labels and annotations that ask for what this mesh does not do, so that they are not ignored in silence. What pods
//! ask of their own capture is told by the agent, which knows.

use kube_api::{ObjectMeta, ObjectRef};

use crate::enrolment::DATAPLANE_MODE_LABEL;
use crate::finding::{Finding, Reason};

/// Labels of namespaces, Services and pods, and what happens instead.
const LABELS: [(&str, Reason, &str); 5] = [
    (
        "istio.io/use-waypoint",
        Reason::NeedsWaypoint,
        "waypoints are not served here, connections go to the workloads without them and no L7 policy is applied",
    ),
    (
        "istio.io/ingress-use-waypoint",
        Reason::NeedsWaypoint,
        "waypoints are not served here, ingress gateways go to the workloads without them",
    ),
    ("istio.io/global", Reason::Unsupported, "there is one cluster, others do not see it"),
    ("istio.io/persistent-session", Reason::Unsupported, "each connection goes to any endpoint"),
    ("networking.istio.io/tunnel", Reason::Unsupported, "HBONE is announced only for pods that the agent has enrolled"),
];

/// Values that ask for nothing.
const OFF: [&str; 3] = ["", "none", "false"];

const NETWORK: &str = "topology.istio.io/network";
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
const DISTRIBUTIONS: [&str; 4] = ["any", "preferclose", "prefersamezone", "prefersamenode"];

/// What the object asks for and does not get.
pub(crate) fn findings(key: &ObjectRef, meta: &ObjectMeta) -> Vec<Finding> {
    let asked = LABELS.iter().filter_map(|(label, reason, instead)| {
        let value = meta.labels.get(*label).filter(|value| !OFF.contains(&value.as_str()))?;
        Some(Finding::warning(key, *reason, format!("{label}={value} has no effect: {instead}")))
    });
    asked.chain(mode(key, meta)).collect()
}

/// A mode that is none: the object counts as if it had no such label.
fn mode(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    let value = meta.labels.get(DATAPLANE_MODE_LABEL).filter(|value| !["ambient", "none"].contains(&value.as_str()))?;
    let message = format!("{DATAPLANE_MODE_LABEL}={value} has no effect: ambient or none is expected");
    Some(Finding::warning(key, Reason::InvalidValue, message))
}

/// The network of the cluster, as the namespace of the control plane names it.
pub(crate) fn network(key: &ObjectRef, meta: &ObjectMeta) -> Option<Finding> {
    let value = meta.labels.get(NETWORK).filter(|value| !value.is_empty())?;
    let message = format!("{NETWORK}={value} has no effect: there is one network, and it has no name");
    Some(Finding::warning(key, Reason::Unsupported, message))
}

/// A preference among endpoints that is none.
pub(crate) fn distribution(key: &ObjectRef, meta: &ObjectMeta, field: Option<&str>) -> Option<Finding> {
    let annotation = meta.annotations.get(TRAFFIC_DISTRIBUTION).map(|value| (TRAFFIC_DISTRIBUTION, value.as_str()));
    let mut named = field.map(|value| ("spec.trafficDistribution", value)).into_iter().chain(annotation);
    let is_unknown = |value: &str| !value.is_empty() && !DISTRIBUTIONS.contains(&value.to_ascii_lowercase().as_str());
    let (name, value) = named.find(|(_, value)| is_unknown(value))?;
    let message = format!(
        "{name} {value:?} has no effect: PreferClose, PreferSameZone or PreferSameNode is expected, connections go to any endpoint"
    );
    Some(Finding::warning(key, Reason::InvalidValue, message))
}

#[cfg(test)]
mod tests {
    use kube_api::Kind;

    use super::*;

    fn with(label: &str, value: &str) -> Vec<Reason> {
        let mut meta = ObjectMeta::default();
        meta.labels.insert(label.to_owned(), value.to_owned());
        let found = findings(&ObjectRef::new(Kind::Service, "app", "web"), &meta);
        found.into_iter().map(|finding| finding.reason).collect()
    }

    #[test]
    fn a_label_that_asks_for_what_is_not_done_is_told() {
        assert_eq!(with("istio.io/use-waypoint", "gate"), [Reason::NeedsWaypoint]);
        assert_eq!(with("istio.io/use-waypoint", "none"), []);
        assert_eq!(with("istio.io/global", "true"), [Reason::Unsupported]);
        assert_eq!(with("istio.io/global", "false"), []);
        assert_eq!(with("app", "web"), []);
    }

    #[test]
    fn a_misspelt_mode_is_told() {
        assert_eq!(with(DATAPLANE_MODE_LABEL, "ambeint"), [Reason::InvalidValue]);
        assert_eq!(with(DATAPLANE_MODE_LABEL, "ambient"), []);
        assert_eq!(with(DATAPLANE_MODE_LABEL, "none"), []);
    }

    #[test]
    fn an_unknown_distribution_is_told() {
        let key = ObjectRef::new(Kind::Service, "app", "web");
        let told = |field: Option<&str>| distribution(&key, &ObjectMeta::default(), field).is_some();

        assert!(told(Some("Nearest")));
        assert!(!told(Some("PreferClose")) && !told(Some("Any")) && !told(None));
    }
}
