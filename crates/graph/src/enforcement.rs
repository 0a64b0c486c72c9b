//! Enforcement of a policy as data, and the only place that renders it: the condition `Enforced` of the policy's status,
//! beside the conditions that Istio's control plane writes.
//!
//! The data are about workloads whose enrolment the agent has read back from the kernel. Acknowledgements by their
//! proxies are a [`Delivery`], which the server of the policies counts.

use kube_types::core::{Condition, ConditionStatus};

use crate::delivery::Delivery;
use crate::outcome::{Outcome, condition};
use crate::placement::Scope;

/// State of a policy, from which the conditions of its status follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// `metadata.generation` of the policy that the state follows from; `None` where nothing counts it.
    pub(crate) generation: Option<i64>,
    /// The conditions that Istio's control plane writes.
    pub(crate) accepted: Vec<Condition>,
    pub(crate) enforcement: Enforcement,
}

/// Enforcement of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enforcement {
    pub(crate) effect: Effect,
    pub(crate) coverage: Coverage,
    pub(crate) details: Details,
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
        // No answer of a proxy can put such a policy in force, so none is waited for.
        self.enforcement.outcome().0.status() == ConditionStatus::True
    }

    /// Conditions of the policy's status, without times; with `None` as if everything were acknowledged.
    pub fn conditions(&self, delivery: Option<&Delivery>) -> Vec<Condition> {
        let conditions = self.accepted.iter().cloned().chain([self.enforcement.condition(delivery)]);
        conditions.map(|condition| Condition { observed_generation: self.generation, ..condition }).collect()
    }
}

/// Number of workloads that a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
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
    Nothing { outcome: Outcome, message: String },
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
            // Neither refuses anything, so that a part less makes no difference.
            Self::Logged | Self::Nothing { .. } => self,
        }
    }

    pub(crate) fn nothing(outcome: Outcome, message: impl Into<String>) -> Self {
        Self::Nothing { outcome, message: message.into() }
    }
}

/// Reasons why a policy is not enforced everywhere, and facts that its messages depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
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

impl Enforcement {
    fn condition(&self, delivery: Option<&Delivery>) -> Condition {
        let outcome = self.outcome();
        let (outcome, message) = match delivery {
            // Only what would be enforced depends on answers: what can never match is no better for being acknowledged.
            Some(delivery) if outcome.0.status() == ConditionStatus::True && !delivery.is_complete() => {
                delivery.outcome()
            }
            Some(_) | None => outcome,
        };
        condition(outcome, &message)
    }

    /// Outcome and message once everything is acknowledged.
    fn outcome(&self) -> (Outcome, String) {
        let Self { effect, coverage, details, .. } = self;
        let coverage = *coverage;
        match effect {
            Effect::Nothing { outcome, message } => (*outcome, message.clone()),
            // From the widest reason to the narrowest: nothing selected, nothing in the mesh, nothing left by other
            // policies. What the policy does matters only where it applies.
            Effect::Whole { .. } | Effect::Partial { .. } | Effect::Logged if coverage.selected == 0 => {
                (Outcome::NoWorkload, format!("selects no workload{}", because(&details.idle)))
            }
            _ if coverage.in_mesh == 0 => {
                // The agent has not confirmed any of them, or none has the label.
                (Outcome::NoWorkload, format!("selects {}, none of them in the mesh", workloads(coverage.selected)))
            }
            _ if coverage.decided == 0 => (Outcome::Shadowed, shadowed(coverage, details)),
            Effect::Logged => {
                (Outcome::DryRun, format!("dry run: only logged, {}", places(coverage.decided, coverage, details)))
            }
            // An ALLOW policy that cannot match still denies every connection, so it is enforced.
            _ if !details.is_allow && coverage.unmatched >= coverage.decided => {
                let (places, why) = (workloads_selected(coverage.decided), because(&details.unmatched));
                (Outcome::NeverMatches, format!("no connection to the {places} in the mesh can match{why}"))
            }
            // In force everywhere, but on some workloads it denies all, which its author may not expect.
            Effect::Whole { what, note } if details.is_allow && coverage.unmatched > 0 => {
                (Outcome::PartiallyEnforced, sentence(what, coverage, details, note))
            }
            Effect::Whole { what, note } => (Outcome::Enforced, sentence(what, coverage, details, note)),
            Effect::Partial { what, how } => (Outcome::PartiallyEnforced, sentence(what, coverage, details, how)),
        }
    }
}

/// A reason as the end of a sentence.
fn because(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
}

fn shadowed(coverage: Coverage, details: &Details) -> String {
    // The two ways to lose: to a narrower policy, or to an older one of the same breadth.
    let by = if details.is_wide { "policies for fewer workloads" } else { "older policies" };
    let place = if coverage.in_mesh < coverage.selected { " in the mesh" } else { "" };
    format!("shadowed on all {}{place} by {by}", workloads_selected(coverage.in_mesh))
}

/// The whole message: the part that is enforced, the workloads on which it is and is not, and further notes.
fn sentence(what: &str, coverage: Coverage, details: &Details, rest: &str) -> String {
    // A DENY policy that cannot match on a workload is not counted there; an ALLOW policy is, because it denies all.
    let count =
        if details.is_allow { coverage.decided } else { coverage.decided - coverage.unmatched.min(coverage.decided) };
    let mut text = format!("{what} enforced {}", places(count, coverage, details)).trim_start().to_owned();
    if coverage.unmatched > 0 {
        let so = if details.is_allow { ", so that nothing is allowed there" } else { "" };
        text.push_str(&format!("; no rule can match on {}{so}", coverage.unmatched));
        // The effect may quote the same reason already.
        let why = details.unmatched.as_ref().filter(|why| !rest.contains(why.as_str()));
        text.extend(why.map(|why| format!(": {why}")));
    }
    if !rest.is_empty() {
        text.push_str(&format!("; {rest}"));
    }
    text
}

fn places(count: usize, coverage: Coverage, details: &Details) -> String {
    let mut text = format!("on {count} of {}", workloads_selected(coverage.selected));
    if coverage.decided < coverage.in_mesh {
        let by = if details.is_wide { "a policy for fewer workloads" } else { "an older policy" };
        text.push_str(&format!("; {} shadowed by {by}", coverage.in_mesh - coverage.decided));
    }
    if coverage.in_mesh < coverage.selected {
        text.push_str(&format!("; {} not in the mesh", coverage.selected - coverage.in_mesh));
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

    fn rendered(effect: &Effect, coverage: [usize; 4], details: &Details) -> Words {
        let [selected, in_mesh, decided, unmatched] = coverage;
        let coverage = Coverage { selected, in_mesh, decided, unmatched };
        let enforcement =
            Enforcement { effect: effect.clone(), coverage, details: details.clone(), scope: Scope::Mesh };
        let (outcome, message) = enforcement.outcome();
        (outcome.status().to_string(), outcome.reason().to_owned(), message)
    }

    fn words(status: &str, reason: &str, message: &str) -> Words {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    }

    #[test]
    fn a_policy_is_enforced_where_it_decides_for_a_workload_in_the_mesh() {
        let whole = Effect::whole("");
        let (narrow, wide) = (Details::default(), Details { is_wide: true, ..Details::default() });
        let idle = Details { idle: Some("namespace \"shp\" not found".to_owned()), ..Details::default() };

        assert_eq!(rendered(&whole, [0; 4], &narrow), words("False", "NoWorkload", "selects no workload"));
        let message = "selects no workload: namespace \"shp\" not found";
        assert_eq!(rendered(&whole, [0; 4], &idle), words("False", "NoWorkload", message));
        let message = "selects 2 workloads, none of them in the mesh";
        assert_eq!(rendered(&whole, [2, 0, 0, 0], &narrow), words("False", "NoWorkload", message));
        let message = "shadowed on all 3 selected workloads by older policies";
        assert_eq!(rendered(&whole, [3, 3, 0, 0], &narrow), words("False", "Shadowed", message));
        let message = "shadowed on all 2 selected workloads in the mesh by policies for fewer workloads";
        assert_eq!(rendered(&whole, [3, 2, 0, 0], &wide), words("False", "Shadowed", message));
        let message = "enforced on 1 of 1 selected workload";
        assert_eq!(rendered(&whole, [1, 1, 1, 0], &narrow), words("True", "Enforced", message));
        let message = "enforced on 2 of 6 selected workloads; 1 shadowed by an older policy; 3 not in the mesh";
        assert_eq!(rendered(&whole, [6, 3, 2, 0], &narrow), words("True", "Enforced", message));
        let message = "STRICT enforced on 2 of 6 selected workloads; 1 shadowed by a policy for fewer workloads; 3 not in the mesh";
        assert_eq!(rendered(&Effect::whole("STRICT"), [6, 3, 2, 0], &wide), words("True", "Enforced", message));
    }

    #[test]
    fn workloads_that_it_cannot_touch_are_not_counted() {
        let deny = Details { unmatched: Some("port 80 is the Service's".to_owned()), ..Details::default() };
        let allow = Details { is_allow: true, ..deny.clone() };
        let whole = Effect::whole("");

        let message = "enforced on 1 of 3 selected workloads; no rule can match on 2: port 80 is the Service's";
        assert_eq!(rendered(&whole, [3, 3, 3, 2], &deny), words("True", "Enforced", message));
        let message = "no connection to the 3 selected workloads in the mesh can match: port 80 is the Service's";
        assert_eq!(rendered(&whole, [3, 3, 3, 3], &deny), words("False", "NeverMatches", message));
        let message = "enforced on 3 of 3 selected workloads; no rule can match on 3, so that nothing is allowed there: port 80 is the Service's";
        assert_eq!(rendered(&whole, [3, 3, 3, 3], &allow), words("True", "PartiallyEnforced", message));
    }

    #[test]
    fn a_policy_that_is_only_logged_or_enforced_in_part_is_reported() {
        let details = Details::default();
        let partial = Effect::partial("", "rules[0] is left out".to_owned());

        let message = "dry run: only logged, on 1 of 1 selected workload";
        assert_eq!(rendered(&Effect::Logged, [1, 1, 1, 0], &details), words("False", "DryRun", message));
        let message = "enforced on 2 of 2 selected workloads; rules[0] is left out";
        assert_eq!(rendered(&partial, [2, 2, 2, 0], &details), words("True", "PartiallyEnforced", message));
        assert_eq!(
            rendered(&Effect::nothing(Outcome::Ignored, "why"), [2, 2, 2, 0], &details),
            words("False", "Ignored", "why")
        );
    }
}
