//! Labels of Istio's TCP metrics: their names, order and values.

use std::sync::Arc;

use ::metrics::{Label, SharedString};

use crate::Direction;

/// One side of a connection. Empty texts become `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PeerLabels {
    /// Name of the workload's owner.
    pub workload: Arc<str>,
    /// Canonical name.
    pub canonical_service: Arc<str>,
    /// Canonical revision.
    pub canonical_revision: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// SPIFFE id.
    pub principal: Arc<str>,
    /// Usually the canonical name.
    pub app: Arc<str>,
    /// Usually the canonical revision.
    pub version: Arc<str>,
    /// Cluster id.
    pub cluster: Arc<str>,
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
}

/// Labels that the connections of one series have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrafficLabels {
    /// Side of the proxy that counts.
    pub direction: Direction,
    /// Client.
    pub source: PeerLabels,
    /// Hostname of the service.
    pub destination_service: Arc<str>,
    /// Its namespace.
    pub destination_service_namespace: Arc<str>,
    /// Its short name.
    pub destination_service_name: Arc<str>,
    /// Server.
    pub destination: PeerLabels,
    /// `mutual_tls`, else `unknown`.
    pub mutual_tls: bool,
}

/// A label of a series, and how its value is read.
struct TrafficLabel {
    name: &'static str,
    value: fn(&TrafficLabels, &'static str) -> SharedString,
}

/// Labels in Istio's order. The second argument of a value is the response flag.
const LABELS: [TrafficLabel; 27] = [
    TrafficLabel { name: "reporter", value: |l, _| SharedString::const_str(l.direction.reporter()) },
    TrafficLabel { name: "source_workload", value: |l, _| or_unknown(&l.source.workload) },
    TrafficLabel { name: "source_canonical_service", value: |l, _| or_unknown(&l.source.canonical_service) },
    TrafficLabel { name: "source_canonical_revision", value: |l, _| or_unknown(&l.source.canonical_revision) },
    TrafficLabel { name: "source_workload_namespace", value: |l, _| or_unknown(&l.source.namespace) },
    TrafficLabel { name: "source_principal", value: |l, _| or_unknown(&l.source.principal) },
    TrafficLabel { name: "source_app", value: |l, _| or_unknown(&l.source.app) },
    TrafficLabel { name: "source_version", value: |l, _| or_unknown(&l.source.version) },
    TrafficLabel { name: "source_cluster", value: |l, _| or_unknown(&l.source.cluster) },
    TrafficLabel { name: "destination_service", value: |l, _| or_unknown(&l.destination_service) },
    TrafficLabel { name: "destination_service_namespace", value: |l, _| or_unknown(&l.destination_service_namespace) },
    TrafficLabel { name: "destination_service_name", value: |l, _| or_unknown(&l.destination_service_name) },
    TrafficLabel { name: "destination_workload", value: |l, _| or_unknown(&l.destination.workload) },
    TrafficLabel { name: "destination_canonical_service", value: |l, _| or_unknown(&l.destination.canonical_service) },
    TrafficLabel {
        name: "destination_canonical_revision",
        value: |l, _| or_unknown(&l.destination.canonical_revision),
    },
    TrafficLabel { name: "destination_workload_namespace", value: |l, _| or_unknown(&l.destination.namespace) },
    TrafficLabel { name: "destination_principal", value: |l, _| or_unknown(&l.destination.principal) },
    TrafficLabel { name: "destination_app", value: |l, _| or_unknown(&l.destination.app) },
    TrafficLabel { name: "destination_version", value: |l, _| or_unknown(&l.destination.version) },
    TrafficLabel { name: "destination_cluster", value: |l, _| or_unknown(&l.destination.cluster) },
    // Also for HBONE: a tunnel carries TCP.
    TrafficLabel { name: "request_protocol", value: |_, _| SharedString::const_str("tcp") },
    TrafficLabel { name: "response_flags", value: |_, flags| SharedString::const_str(flags) },
    TrafficLabel {
        name: "connection_security_policy",
        value: |l, _| SharedString::const_str(if l.mutual_tls { "mutual_tls" } else { "unknown" }),
    },
    TrafficLabel { name: "source_region", value: |l, _| or_unknown(&l.source.region) },
    TrafficLabel { name: "source_zone", value: |l, _| or_unknown(&l.source.zone) },
    TrafficLabel { name: "destination_region", value: |l, _| or_unknown(&l.destination.region) },
    TrafficLabel { name: "destination_zone", value: |l, _| or_unknown(&l.destination.zone) },
];

/// Names of the labels, for the catalogue.
pub(super) const NAMES: [&str; LABELS.len()] = {
    let mut names = [""; LABELS.len()];
    // A `const` block cannot use iterators yet.
    let mut at = 0;
    while at < LABELS.len() {
        names[at] = LABELS[at].name;
        at += 1;
    }
    names
};

impl TrafficLabels {
    /// Labels of connections of which no more is known than the side that counts.
    pub fn unknown(direction: Direction) -> Self {
        Self {
            direction,
            source: PeerLabels::default(),
            destination_service: "".into(),
            destination_service_namespace: "".into(),
            destination_service_name: "".into(),
            destination: PeerLabels::default(),
            mutual_tls: false,
        }
    }

    /// Labels of the series of these connections with one response flag (`-`: none).
    pub(super) fn labels(&self, response_flags: &'static str) -> Vec<Label> {
        LABELS.iter().map(|label| Label::new(label.name, (label.value)(self, response_flags))).collect()
    }
}

pub(super) fn or_unknown(value: &Arc<str>) -> SharedString {
    if value.is_empty() { SharedString::const_str("unknown") } else { SharedString::from_shared(value.clone()) }
}
