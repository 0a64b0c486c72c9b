//! What really holds of a policy: the condition `Enforced`, beside the conditions that Istio's control plane writes.
//!
//! It says what node proxies are told to do for workloads whose enrolment the agent has read back from the kernel. Whether
//! each proxy has acknowledged it is not known here: who serves them replaces what is not acknowledged.

use kube_api::core::Condition;

/// Type of the condition.
pub const ENFORCED: &str = "Enforced";

/// How many workloads a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// That it selects.
    pub(crate) selected: usize,
    /// Of those, in the mesh.
    pub(crate) in_mesh: usize,
    /// Of those, where no older policy decides instead.
    pub(crate) decided: usize,
}

/// What node proxies do with a policy, whatever it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// All that it says; `what` in words when the policy needs them.
    Whole { what: &'static str },
    /// Less, more, or otherwise than it says.
    Partial { what: &'static str, how: String },
    /// They evaluate and log it.
    Logged,
    /// Nothing at all.
    Nothing { reason: &'static str, message: String },
}

impl Effect {
    pub(crate) fn nothing(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Nothing { reason, message: message.into() }
    }
}

/// A condition of a policy's status, without a time.
pub(crate) fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
    }
}

/// The condition of a policy with this effect on the workloads that it reaches.
pub(crate) fn enforced(effect: &Effect, reach: Reach) -> Condition {
    let (status, reason, message) = match effect {
        Effect::Nothing { reason, message } => (false, *reason, message.clone()),
        _ if reach.selected == 0 => (false, "NoWorkload", "selects no workload".to_owned()),
        _ if reach.in_mesh == 0 => {
            (false, "NoWorkload", format!("selects {}, none of them in the mesh", workloads(reach.selected)))
        }
        _ if reach.decided == 0 => {
            (false, "Shadowed", format!("others decide for {} that it selects", workloads(reach.in_mesh)))
        }
        Effect::Logged => (false, "DryRun", format!("only logged, {}", places(reach))),
        Effect::Whole { what } => (true, "Enforced", sentence(what, reach)),
        Effect::Partial { what, how } => (true, "PartiallyEnforced", format!("{}; {how}", sentence(what, reach))),
    };
    condition(ENFORCED, status, reason, &message)
}

fn sentence(what: &str, reach: Reach) -> String {
    let places = places(reach);
    if what.is_empty() { places } else { format!("{what} {places}") }
}

fn places(reach: Reach) -> String {
    let mut text = format!("on {} in the mesh", workloads(reach.decided));
    if reach.decided < reach.in_mesh {
        text.push_str(&format!("; others decide for {} more", reach.in_mesh - reach.decided));
    }
    if reach.in_mesh < reach.selected {
        text.push_str(&format!("; not on {} outside the mesh", workloads(reach.selected - reach.in_mesh)));
    }
    text
}

fn workloads(count: usize) -> String {
    if count == 1 { "1 workload".to_owned() } else { format!("{count} workloads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(effect: &Effect, selected: usize, in_mesh: usize, decided: usize) -> (String, String, String) {
        let condition = enforced(effect, Reach { selected, in_mesh, decided });
        (condition.status, condition.reason.unwrap(), condition.message.unwrap())
    }

    fn words(status: &str, reason: &str, message: &str) -> (String, String, String) {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    }

    #[test]
    fn a_policy_is_enforced_where_it_decides_for_a_workload_in_the_mesh() {
        let whole = Effect::Whole { what: "" };

        assert_eq!(said(&whole, 0, 0, 0), words("False", "NoWorkload", "selects no workload"));
        assert_eq!(
            said(&whole, 2, 0, 0),
            words("False", "NoWorkload", "selects 2 workloads, none of them in the mesh")
        );
        assert_eq!(said(&whole, 3, 3, 0), words("False", "Shadowed", "others decide for 3 workloads that it selects"));
        assert_eq!(said(&whole, 1, 1, 1), words("True", "Enforced", "on 1 workload in the mesh"));
        assert_eq!(
            said(&Effect::Whole { what: "STRICT" }, 6, 3, 2),
            words(
                "True",
                "Enforced",
                "STRICT on 2 workloads in the mesh; others decide for 1 more; not on 3 workloads outside the mesh"
            )
        );
    }

    #[test]
    fn what_is_only_logged_or_only_in_part_enforced_is_said() {
        let partial = Effect::Partial { what: "", how: "rules[0] is left out".to_owned() };

        assert_eq!(said(&Effect::Logged, 1, 1, 1), words("False", "DryRun", "only logged, on 1 workload in the mesh"));
        assert_eq!(
            said(&partial, 2, 2, 2),
            words("True", "PartiallyEnforced", "on 2 workloads in the mesh; rules[0] is left out")
        );
        assert_eq!(said(&Effect::nothing("Ignored", "why"), 2, 2, 2), words("False", "Ignored", "why"));
    }
}
