//! Outcomes for a policy: every type, status and reason of the conditions in its status, with their meaning and remedy.

use kube_types::core::{Condition, ConditionStatus};

/// Type of the condition about enforcement.
pub const ENFORCED: &str = "Enforced";

/// Type of Istio's condition about acceptance by node proxies.
pub(crate) const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";

/// Type of Istio's condition about acceptance by a waypoint.
pub(crate) const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Outcome for a policy, from which the type, status and reason of a condition follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Enforced,
    PartiallyEnforced,
    NoWorkload,
    Shadowed,
    DryRun,
    NeverMatches,
    NoRules,
    Ignored,
    NothingSet,
    Unsupported,
    Refused,
    RefusedInBatch,
    ProxyGone,
    NotAcknowledged,
    Pending,
    AtWaypoints,
    AcceptedByZtunnel,
    AcceptedInPartByZtunnel,
    NotAcceptedByZtunnel,
    NotAcceptedByWaypoint,
}

/// Condition that an outcome makes, and what its reader needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: &'static str,
    pub status: ConditionStatus,
    pub reason: &'static str,
    pub meaning: &'static str,
    pub remedy: &'static str,
}

const fn enforced(reason: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { kind: ENFORCED, status: ConditionStatus::True, reason, meaning, remedy }
}

const fn not_enforced(reason: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { kind: ENFORCED, status: ConditionStatus::False, reason, meaning, remedy }
}

const fn unknown(reason: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { kind: ENFORCED, status: ConditionStatus::Unknown, reason, meaning, remedy }
}

const fn accepted(
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    meaning: &'static str,
    remedy: &'static str,
) -> Entry {
    Entry { kind, status, reason, meaning, remedy }
}

impl Outcome {
    /// All outcomes, in the order of the reference page.
    pub const ALL: [Self; 20] = [
        Self::Enforced,
        Self::PartiallyEnforced,
        Self::NoWorkload,
        Self::Shadowed,
        Self::DryRun,
        Self::NeverMatches,
        Self::NoRules,
        Self::Ignored,
        Self::NothingSet,
        Self::Unsupported,
        Self::Refused,
        Self::RefusedInBatch,
        Self::ProxyGone,
        Self::NotAcknowledged,
        Self::Pending,
        Self::AtWaypoints,
        Self::AcceptedByZtunnel,
        Self::AcceptedInPartByZtunnel,
        Self::NotAcceptedByZtunnel,
        Self::NotAcceptedByWaypoint,
    ];

    /// The condition and its meaning.
    #[rustfmt::skip] // One line for each outcome.
    pub const fn entry(self) -> Entry {
        match self {
            // By what the policy says, and where.
            Self::Enforced => enforced("Enforced", "The proxies of all selected workloads in the mesh have acknowledged the policy. The message counts selected workloads that are not in the mesh, and those on which another policy takes precedence.", "None."),
            Self::PartiallyEnforced => enforced("PartiallyEnforced", "Enforced with less, more or another effect than written: a part of it is not supported or can never match. The message names each part.", "Change the parts that the message and the findings name."),
            Self::NoWorkload => not_enforced("NoWorkload", "The policy selects no workload, or none that is in the mesh.", "Compare the selector with the labels of the pods, and the namespace; label the pods or their namespace `istio.io/dataplane-mode=ambient`; see `strake get pods`."),
            Self::Shadowed => not_enforced("Shadowed", "A PeerAuthentication that is older or for fewer workloads takes precedence on every selected workload.", "Merge the policies, or delete the one that the message names."),
            Self::DryRun => not_enforced("DryRun", "The annotation `istio.io/dry-run` makes proxies evaluate and log the policy only.", "Remove the annotation to enforce the policy."),
            Self::NeverMatches => not_enforced("NeverMatches", "No connection to the selected workloads can match a rule of a DENY policy.", "Correct the value that the message names."),
            Self::NoRules => not_enforced("NoRules", "A DENY policy without rules denies nothing.", "Add a rule: `rules: [{}]` denies every connection."),
            Self::Ignored => not_enforced("Ignored", "Selectors of a PeerAuthentication in the root namespace are ignored.", "Move the policy to the namespace of its workloads, or remove the selector."),
            Self::NothingSet => not_enforced("NothingSet", "The PeerAuthentication sets no mode.", "Set `mtls.mode`, or delete the policy."),
            Self::Unsupported => not_enforced("UnsupportedValue", "Node proxies cannot enforce the policy at all: its action is AUDIT or CUSTOM, or it is for a waypoint.", "Use ALLOW or DENY with attributes of connections."),
            // By the answers of the proxies.
            Self::Refused => not_enforced("Refused", "A proxy has rejected the policy; the message quotes its answer.", "Compare the versions of control plane and proxy; see the log of the proxy on that node."),
            Self::RefusedInBatch => unknown("Refused", "A proxy has rejected a response that contains the policy, and its answer names another resource.", "Find the resource that the message names; see the log of the proxy on that node."),
            Self::ProxyGone => unknown("ProxyGone", "No proxy of a node with selected workloads is connected to discovery.", "Look at the ztunnel pod of that node, its token, and its route to the control plane."),
            Self::NotAcknowledged => unknown("NotAcknowledged", "A connected proxy has not answered for 10 s.", "Look at the load and the log of the ztunnel of that node."),
            Self::Pending => unknown("Pending", "The policy is on its way to the proxies.", "Wait: a healthy proxy answers within seconds."),
            Self::AtWaypoints => unknown("AtWaypoints", "The policy goes to the waypoints of its services. What waypoints have put in force is not reported yet.", "Try a request that the policy denies; see the log of the waypoint."),
            // As Istio's control plane writes them.
            Self::AcceptedByZtunnel => accepted(ZTUNNEL_ACCEPTED, ConditionStatus::True, "Accepted", "Node proxies can enforce the whole policy. Istio's control plane writes the same.", "None."),
            Self::AcceptedInPartByZtunnel => accepted(ZTUNNEL_ACCEPTED, ConditionStatus::True, "UnsupportedValue", "Node proxies enforce the policy without the attributes that the message names, which is stricter. Istio's control plane writes the same.", "Remove the HTTP attributes, or correct the value."),
            Self::NotAcceptedByZtunnel => accepted(ZTUNNEL_ACCEPTED, ConditionStatus::False, "UnsupportedValue", "Node proxies do not support the action of the policy.", "Use ALLOW or DENY."),
            Self::NotAcceptedByWaypoint => accepted(WAYPOINT_ACCEPTED, ConditionStatus::False, "UnsupportedValue", "The policy is for something else than Services, which waypoints do not get policies for yet.", "Name Services in `targetRefs`, or use a selector."),
        }
    }

    /// Status of the condition.
    pub const fn status(self) -> ConditionStatus {
        self.entry().status
    }

    /// Reason of the condition.
    pub const fn reason(self) -> &'static str {
        self.entry().reason
    }
}

/// A condition of a policy's status, without time and generation.
pub(crate) fn condition(outcome: Outcome, message: &str) -> Condition {
    let Entry { kind, status, reason, .. } = outcome.entry();
    Condition {
        r#type: kind.to_owned(),
        status,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        // The writer of statuses, which knows the condition that the object has now, sets the rest.
        ..Condition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_listed_once_in_the_order_of_declaration() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{outcome:?}");
        }
        assert_eq!(Outcome::NotAcceptedByWaypoint as usize + 1, Outcome::ALL.len());
    }
}
