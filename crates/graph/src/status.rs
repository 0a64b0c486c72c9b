//! Statuses of objects that follow from the graph alone. Those of policies need acknowledgements: see `enforcement`.

use kube_types::core::Condition;
use kube_types::istio::HostAddress;

use crate::binding::WAYPOINT_BOUND;
use crate::outcome::{ENFORCED, WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED};

/// Type of the condition of a ServiceEntry that has no effect before it has a waypoint. Istio's.
pub(crate) const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";

/// Types of all conditions that this mesh writes.
pub const CONDITION_TYPES: [&str; 5] =
    [ENFORCED, ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED, WAYPOINT_BOUND, WAYPOINT_MISSING];

/// The part of a status that this mesh writes. Empty: it writes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectStatus {
    pub conditions: Vec<Condition>,
    /// Addresses allocated for the hosts of a ServiceEntry.
    pub addresses: Vec<HostAddress>,
}

impl ObjectStatus {
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty() && self.addresses.is_empty()
    }
}

/// Returns true if conditions of a status are of a type that this mesh writes.
pub(crate) fn has_ours(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| [WAYPOINT_BOUND, WAYPOINT_MISSING].contains(&condition.r#type.as_str()))
}
