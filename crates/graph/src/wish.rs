//! Labels and annotations by which an object, or its namespace, asks for waypoints.

use contract::labels::{
    INGRESS_USE_WAYPOINT_LABEL, USE_WAYPOINT_CANARY_LABEL, USE_WAYPOINT_CANARY_NAMESPACE_LABEL,
    USE_WAYPOINT_CANARY_WEIGHT_ANNOTATION, USE_WAYPOINT_LABEL, USE_WAYPOINT_NAMESPACE_LABEL, USE_WAYPOINT_NONE,
    WAYPOINT_FAILURE_CLOSED, WAYPOINT_FAILURE_LABEL, WAYPOINT_FAILURE_OPEN,
};
use kube_types::{ObjectMeta, StringMap};

use crate::waypoint::WaypointName;

/// Wish of an object or of its namespace for a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Named(WaypointName),
    /// None, whatever the namespace says.
    Nothing,
}

/// Fate of connections while the waypoint cannot take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureMode {
    /// They fail, also before the waypoint was ready for the first time.
    Closed,
    /// They go to the endpoints directly, also after it was.
    Open,
}

/// Reads the failure mode: the object's label before that of its namespace. `None`, also for an unknown value: they go to the
/// endpoints before the waypoint was ready for the first time, and fail after it.
pub(crate) fn failure_mode(labels: &StringMap, namespace: Option<&StringMap>) -> Option<FailureMode> {
    let own = labels.get(WAYPOINT_FAILURE_LABEL);
    match own.or_else(|| namespace?.get(WAYPOINT_FAILURE_LABEL))?.as_str() {
        WAYPOINT_FAILURE_CLOSED => Some(FailureMode::Closed),
        WAYPOINT_FAILURE_OPEN => Some(FailureMode::Open),
        _ => None,
    }
}

/// Reads the wish from labels; the waypoint is in `namespace` unless a label names another one.
pub(crate) fn wish(labels: &StringMap, namespace: &str) -> Option<Wish> {
    let name = labels.get(USE_WAYPOINT_LABEL)?;
    if name == USE_WAYPOINT_NONE {
        return Some(Wish::Nothing);
    }
    Some(Wish::Named(named(labels, USE_WAYPOINT_NAMESPACE_LABEL, namespace, name)))
}

/// Reads the wish for a second waypoint.
pub(crate) fn canary(labels: &StringMap, namespace: &str) -> Option<WaypointName> {
    let name = labels.get(USE_WAYPOINT_CANARY_LABEL)?;
    Some(named(labels, USE_WAYPOINT_CANARY_NAMESPACE_LABEL, namespace, name))
}

fn named(labels: &StringMap, label: &str, namespace: &str, name: &str) -> WaypointName {
    (labels.get(label).map_or(namespace, String::as_str).to_owned(), name.to_owned())
}

/// Reads the share of the second waypoint, in percent.
pub(crate) fn canary_weight(annotations: &StringMap) -> Option<u32> {
    annotations.get(USE_WAYPOINT_CANARY_WEIGHT_ANNOTATION)?.parse().ok().filter(|weight| *weight <= 100)
}

/// Wish that ingress gateways use the waypoint: the object's label before that of its namespace. `None` without label; an
/// unknown value counts as false.
pub(crate) fn ingress(labels: &StringMap, namespace: Option<&StringMap>) -> Option<bool> {
    let own = labels.get(INGRESS_USE_WAYPOINT_LABEL);
    let value = own.or_else(|| namespace?.get(INGRESS_USE_WAYPOINT_LABEL))?;
    // The spellings that Go's `strconv.ParseBool` takes as true.
    Some(["1", "t", "T", "TRUE", "true", "True"].contains(&value.as_str()))
}

/// Labels and annotations of a namespace that its objects inherit, to compare two states of it.
pub(crate) fn inherited(meta: &ObjectMeta) -> [Option<&String>; 7] {
    let label = |key: &str| meta.labels.get(key);
    [
        label(USE_WAYPOINT_LABEL),
        label(USE_WAYPOINT_NAMESPACE_LABEL),
        label(USE_WAYPOINT_CANARY_LABEL),
        label(USE_WAYPOINT_CANARY_NAMESPACE_LABEL),
        label(INGRESS_USE_WAYPOINT_LABEL),
        label(WAYPOINT_FAILURE_LABEL),
        meta.annotations.get(USE_WAYPOINT_CANARY_WEIGHT_ANNOTATION),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_failure_mode_is_none() {
        let labels = |mode: &str| StringMap::from([(WAYPOINT_FAILURE_LABEL.to_owned(), mode.to_owned())]);
        let none = StringMap::new();

        assert_eq!(failure_mode(&labels("closed"), Some(&labels("open"))), Some(FailureMode::Closed));
        assert_eq!(failure_mode(&none, Some(&labels("open"))), Some(FailureMode::Open));
        assert_eq!(failure_mode(&labels("ajar"), Some(&labels("open"))), None);
        assert_eq!(failure_mode(&none, None), None);
    }

    #[test]
    fn a_weight_is_a_whole_number_of_percent() {
        let weight =
            |text: &str| canary_weight(&[(USE_WAYPOINT_CANARY_WEIGHT_ANNOTATION.to_owned(), text.to_owned())].into());
        assert_eq!(
            (weight("0"), weight("100"), weight("101"), weight("-1"), weight("x")),
            (Some(0), Some(100), None, None, None)
        );
        assert_eq!(canary_weight(&StringMap::new()), None);
    }
}
