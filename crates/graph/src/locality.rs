//! Locality of a node, from the topology labels of Kubernetes and Istio.

use contract::labels::{REGION_LABEL, SUBZONE_LABEL, ZONE_LABEL};
use kube_types::core::Node;

/// Region, zone and subzone; each is empty when the node has no such label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub subzone: String,
}

impl Locality {
    /// Locality of a node; `None` when it has none of the labels.
    pub(crate) fn of(node: Option<&Node>) -> Option<Self> {
        let label = |name: &str| node.and_then(|node| node.metadata.labels.get(name)).cloned();
        let locality = Self {
            region: label(REGION_LABEL).unwrap_or_default(),
            zone: label(ZONE_LABEL).unwrap_or_default(),
            subzone: label(SUBZONE_LABEL).unwrap_or_default(),
        };
        // Nodes outside of a cloud have no such labels; the resource then has no locality rather than an empty one.
        (locality != Self::default()).then_some(locality)
    }
}
