//! Enforcement of a policy as data, and the only place that renders it: the condition `Enforced` of the policy's status,
//! beside the conditions that Istio's control plane writes.
//!
//! The data are about workloads whose enrolment the agent has read back from the kernel. Acknowledgements by their
//! proxies are a [`Delivery`], which the server of the policies counts.

use kube_types::core::{Condition, ConditionStatus};

use crate::delivery::Delivery;
use crate::placement::Scope;

/// Type of the condition.
pub const ENFORCED: &str = "Enforced";

/// State of a policy, from which the conditions of its status follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// The conditions that Istio's control plane writes.
    pub(crate) accepted: Vec<Condition>,
    pub(crate) enforcement: Enforcement,
}

/// Enforcement of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enforcement {
    pub(crate) effect: Effect,
    pub(crate) reach: Reach,
    pub(crate) about: About,
    /// The workloads whose proxies have to acknowledge it.
    pub(crate) scope: Scope,
}

impl PolicyState {
    /// The workloads whose proxies have to acknowledge the policy.
    pub fn scope(&self) -> &Scope {
        &self.enforcement.scope
    }

    /// Returns true if the policy is enforced as soon as the proxies have acknowledged it.
    pub fn needs_delivery(&self) -> bool {
        self.enforcement.outcome().0 == ConditionStatus::True
    }

    /// Conditions of the policy's status, without times; with `None` as if everything were acknowledged.
    pub fn conditions(&self, delivery: Option<&Delivery>) -> Vec<Condition> {
        self.accepted.iter().cloned().chain([self.enforcement.condition(delivery)]).collect()
    }
}

/// Number of workloads that a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Number of workloads that it selects.
    pub(crate) selected: usize,
    /// Number of those in the mesh.
    pub(crate) in_mesh: usize,
    /// Number of those in the mesh on which no other policy takes precedence.
    pub(crate) decided: usize,
    /// Number of those in the mesh on which no rule of the policy can match a connection.
    pub(crate) unmatched: usize,
}

/// Enforcement of a policy by node proxies, wherever it applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// All that it says; `what` in words when the policy needs them, `note` what else its author should know.
    Whole { what: &'static str, note: String },
    /// Less, more, or otherwise than it says.
    Partial { what: &'static str, how: String },
    /// They evaluate and log it.
    Logged,
    /// Node proxies do not enforce it at all.
    Nothing { reason: &'static str, message: String },
}

impl Effect {
    pub(crate) const fn whole(what: &'static str) -> Self {
        Self::Whole { what, note: String::new() }
    }

    pub(crate) const fn partial(what: &'static str, how: String) -> Self {
        Self::Partial { what, how }
    }

    /// The same with another part that has no effect.
    pub(crate) fn but(self, loss: &str) -> Self {
        match self {
            Self::Whole { what, .. } => Self::Partial { what, how: loss.to_owned() },
            Self::Partial { what, how } => Self::Partial { what, how: format!("{how}; {loss}") },
            Self::Logged | Self::Nothing { .. } => self,
        }
    }

    pub(crate) fn nothing(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Nothing { reason, message: message.into() }
    }
}

/// Reasons why a policy is not enforced everywhere, and facts about it that messages depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Reason why it selects no workload, if that is known.
    pub(crate) idle: Option<String>,
    /// Reason why none of its rules can match on some workloads.
    pub(crate) unmatched: Option<String>,
    /// The policy is an ALLOW policy, which refuses connections that it does not match.
    pub(crate) is_allow: bool,
    /// The policy is for all workloads of a namespace or of the mesh, so that policies for fewer workloads take
    /// precedence.
    pub(crate) is_wide: bool,
}

/// A condition of a policy's status, without a time.
pub(crate) fn condition(kind: &str, status: ConditionStatus, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
    }
}

impl Enforcement {
    fn condition(&self, delivery: Option<&Delivery>) -> Condition {
        let outcome = self.outcome();
        let (status, reason, message) = match delivery {
            Some(delivery) if outcome.0 == ConditionStatus::True && !delivery.is_complete() => delivery.outcome(),
            Some(_) | None => outcome,
        };
        condition(ENFORCED, status, reason, &message)
    }

    /// Status, reason and message once everything is acknowledged.
    fn outcome(&self) -> (ConditionStatus, &'static str, String) {
        let Self { effect, reach, about, .. } = self;
        let reach = *reach;
        let (holds, reason, message) = match effect {
            Effect::Nothing { reason, message } => (false, *reason, message.clone()),
            Effect::Whole { .. } | Effect::Partial { .. } | Effect::Logged if reach.selected == 0 => {
                let why = about.idle.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                (false, "NoWorkload", format!("selects no workload{why}"))
            }
            _ if reach.in_mesh == 0 => {
                (false, "NoWorkload", format!("selects {}, none of them in the mesh", workloads(reach.selected)))
            }
            _ if reach.decided == 0 => (false, "Shadowed", shadowed(reach, about)),
            Effect::Logged => {
                (false, "DryRun", format!("dry run: only logged, {}", places(reach.decided, reach, about)))
            }
            _ if !about.is_allow && reach.unmatched >= reach.decided => {
                let why = about.unmatched.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let places = workloads_selected(reach.decided);
                (false, "NeverMatches", format!("no connection to the {places} in the mesh can match{why}"))
            }
            Effect::Whole { what, note } if about.is_allow && reach.unmatched > 0 => {
                (true, "PartiallyEnforced", sentence(what, reach, about, note))
            }
            Effect::Whole { what, note } => (true, "Enforced", sentence(what, reach, about, note)),
            Effect::Partial { what, how } => (true, "PartiallyEnforced", sentence(what, reach, about, how)),
        };
        (holds.into(), reason, message)
    }
}

fn shadowed(reach: Reach, about: &About) -> String {
    let by = if about.is_wide { "policies for fewer workloads" } else { "older policies" };
    let place = if reach.in_mesh < reach.selected { " in the mesh" } else { "" };
    format!("shadowed on all {}{place} by {by}", workloads_selected(reach.in_mesh))
}

/// The whole message: what is enforced, where, where not, and what else there is to say.
fn sentence(what: &str, reach: Reach, about: &About, rest: &str) -> String {
    let count = if about.is_allow { reach.decided } else { reach.decided - reach.unmatched.min(reach.decided) };
    let mut text = format!("{what} enforced {}", places(count, reach, about)).trim_start().to_owned();
    if reach.unmatched > 0 {
        let so = if about.is_allow { ", so that nothing is allowed there" } else { "" };
        text.push_str(&format!("; no rule can match on {}{so}", reach.unmatched));
        let why = about.unmatched.as_ref().filter(|why| !rest.contains(why.as_str()));
        text.extend(why.map(|why| format!(": {why}")));
    }
    if !rest.is_empty() {
        text.push_str(&format!("; {rest}"));
    }
    text
}

fn places(count: usize, reach: Reach, about: &About) -> String {
    let mut text = format!("on {count} of {}", workloads_selected(reach.selected));
    if reach.decided < reach.in_mesh {
        let by = if about.is_wide { "a policy for fewer workloads" } else { "an older policy" };
        text.push_str(&format!("; {} shadowed by {by}", reach.in_mesh - reach.decided));
    }
    if reach.in_mesh < reach.selected {
        text.push_str(&format!("; {} not in the mesh", reach.selected - reach.in_mesh));
    }
    text
}

fn workloads(count: usize) -> String {
    if count == 1 { "1 workload".to_owned() } else { format!("{count} workloads") }
}

fn workloads_selected(count: usize) -> String {
    if count == 1 { "1 selected workload".to_owned() } else { format!("{count} selected workloads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words = (String, String, String);

    fn told(effect: &Effect, reach: [usize; 4], about: &About) -> Words {
        let [selected, in_mesh, decided, unmatched] = reach;
        let reach = Reach { selected, in_mesh, decided, unmatched };
        let enforcement = Enforcement { effect: effect.clone(), reach, about: about.clone(), scope: Scope::Mesh };
        let (status, reason, message) = enforcement.outcome();
        (status.to_string(), reason.to_owned(), message)
    }

    fn words(status: &str, reason: &str, message: &str) -> Words {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    }

    #[test]
    fn a_policy_is_enforced_where_it_decides_for_a_workload_in_the_mesh() {
        let whole = Effect::whole("");
        let (narrow, wide) = (About::default(), About { is_wide: true, ..About::default() });
        let idle = About { idle: Some("namespace \"shp\" not found".to_owned()), ..About::default() };

        assert_eq!(told(&whole, [0; 4], &narrow), words("False", "NoWorkload", "selects no workload"));
        let message = "selects no workload: namespace \"shp\" not found";
        assert_eq!(told(&whole, [0; 4], &idle), words("False", "NoWorkload", message));
        let message = "selects 2 workloads, none of them in the mesh";
        assert_eq!(told(&whole, [2, 0, 0, 0], &narrow), words("False", "NoWorkload", message));
        let message = "shadowed on all 3 selected workloads by older policies";
        assert_eq!(told(&whole, [3, 3, 0, 0], &narrow), words("False", "Shadowed", message));
        let message = "shadowed on all 2 selected workloads in the mesh by policies for fewer workloads";
        assert_eq!(told(&whole, [3, 2, 0, 0], &wide), words("False", "Shadowed", message));
        let message = "enforced on 1 of 1 selected workload";
        assert_eq!(told(&whole, [1, 1, 1, 0], &narrow), words("True", "Enforced", message));
        let message = "enforced on 2 of 6 selected workloads; 1 shadowed by an older policy; 3 not in the mesh";
        assert_eq!(told(&whole, [6, 3, 2, 0], &narrow), words("True", "Enforced", message));
        let message = "STRICT enforced on 2 of 6 selected workloads; 1 shadowed by a policy for fewer workloads; 3 not in the mesh";
        assert_eq!(told(&Effect::whole("STRICT"), [6, 3, 2, 0], &wide), words("True", "Enforced", message));
    }

    #[test]
    fn workloads_that_it_cannot_touch_are_not_counted() {
        let deny = About { unmatched: Some("port 80 is the Service's".to_owned()), ..About::default() };
        let allow = About { is_allow: true, ..deny.clone() };
        let whole = Effect::whole("");

        let message = "enforced on 1 of 3 selected workloads; no rule can match on 2: port 80 is the Service's";
        assert_eq!(told(&whole, [3, 3, 3, 2], &deny), words("True", "Enforced", message));
        let message = "no connection to the 3 selected workloads in the mesh can match: port 80 is the Service's";
        assert_eq!(told(&whole, [3, 3, 3, 3], &deny), words("False", "NeverMatches", message));
        let message = "enforced on 3 of 3 selected workloads; no rule can match on 3, so that nothing is allowed there: port 80 is the Service's";
        assert_eq!(told(&whole, [3, 3, 3, 3], &allow), words("True", "PartiallyEnforced", message));
    }

    #[test]
    fn what_is_only_logged_or_only_in_part_enforced_is_told() {
        let about = About::default();
        let partial = Effect::partial("", "rules[0] is left out".to_owned());

        let message = "dry run: only logged, on 1 of 1 selected workload";
        assert_eq!(told(&Effect::Logged, [1, 1, 1, 0], &about), words("False", "DryRun", message));
        let message = "enforced on 2 of 2 selected workloads; rules[0] is left out";
        assert_eq!(told(&partial, [2, 2, 2, 0], &about), words("True", "PartiallyEnforced", message));
        assert_eq!(told(&Effect::nothing("Ignored", "why"), [2, 2, 2, 0], &about), words("False", "Ignored", "why"));
    }
}
