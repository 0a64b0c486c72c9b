//! AuthorizationPolicy to the policy that node proxies enforce, and what to tell its author.
//!
//! A node proxy sees addresses and identities, not requests. Of a policy that asks for more, this is left,
//! as Istio's control plane does it, so that one can take the place of the other:
//!
//! - an ALLOW rule with anything that cannot be matched is left out as a whole, which allows less;
//! - of a DENY rule the fields that cannot be matched are left out. Beside other fields of the same
//!   source or operation this denies more. An operation, source or condition with nothing else is an empty
//!   match, which node proxies skip: the rule denies nothing without a waypoint.
//!
//! The author is told each of them, by the condition of the policy's status and by a finding.
//!
//! Istio's control plane differs in two places, each of which leaves something open: it drops
//! `trustDomains` and so may allow everybody, and it gives `selector: {}` a scope in which nothing refers
//! to the policy. Here the first is translated to principals, and the second means every workload of the
//! namespace, as the API says.

mod clause;
mod value;

use std::collections::BTreeSet;

use kube_api::ObjectRef;
use kube_api::StringMap;
use kube_api::core::Condition;
use kube_api::istio::{Action, AuthorizationPolicy};
use proto::security as wire;

use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;

const DRY_RUN: &str = "istio.io/dry-run";

/// What becomes of a policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Converted {
    /// What node proxies get; nothing when the policy is not for them.
    pub(crate) policy: Option<wire::Authorization>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) conditions: Vec<Condition>,
}

/// The labels that a policy for workloads selects by; `None` when it applies by scope or not at all.
pub(crate) fn selector(policy: &AuthorizationPolicy) -> Option<&StringMap> {
    if is_for_waypoints(policy) || !is_enforced(policy.spec.action) {
        return None;
    }
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

fn is_for_waypoints(policy: &AuthorizationPolicy) -> bool {
    policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty()
}

const fn is_enforced(action: Action) -> bool {
    match action {
        Action::Allow | Action::Deny => true,
        Action::Audit | Action::Custom => false,
    }
}

pub(crate) fn convert(mesh: &Mesh, key: &ObjectRef, policy: &AuthorizationPolicy) -> Converted {
    let action = match policy.spec.action {
        _ if is_for_waypoints(policy) => return for_waypoint(key, policy),
        Action::Allow => wire::Action::Allow,
        Action::Deny => wire::Action::Deny,
        Action::Audit => return unsupported_action(key, "AUDIT"),
        Action::Custom => return unsupported_action(key, "CUSTOM"),
    };
    let mut report = Report::default();
    let places = policy.spec.rules.iter().enumerate();
    let rules = places
        .flat_map(|(index, rule)| {
            let place = clause::Place { rule, index, namespace: &key.namespace };
            clause::rules(&place, action, &mut report)
        })
        .collect();
    let scope = if selector(policy).is_some() {
        wire::Scope::WorkloadSelector
    } else if key.namespace == mesh.root_namespace {
        wire::Scope::Global
    } else {
        wire::Scope::Namespace
    };
    let mut converted = report.into_converted(key, action);
    converted.policy = Some(wire::Authorization {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules,
        dry_run: policy.metadata.annotations.get(DRY_RUN).is_some_and(|value| is_true(value)),
        extensions: Vec::new(),
    });
    converted
}

/// As Go reads booleans; what it cannot read leaves the policy in force.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn for_waypoint(key: &ObjectRef, policy: &AuthorizationPolicy) -> Converted {
    let (reason, message) = if policy.spec.selector.is_some() {
        (Reason::Ambiguous, "a policy has either a selector or targetRefs: this one is not enforced")
    } else {
        (
            Reason::NeedsWaypoint,
            "policies with targetRefs are enforced by waypoints, which are not served here: it is not enforced",
        )
    };
    Converted {
        policy: None,
        findings: vec![Finding::warning(key, reason, message)],
        conditions: vec![condition("WaypointAccepted", false, "UnsupportedValue", message)],
    }
}

fn unsupported_action(key: &ObjectRef, action: &str) -> Converted {
    let message = format!("ztunnel does not support the {action} action: the policy is not enforced");
    Converted {
        policy: None,
        conditions: vec![condition("ZtunnelAccepted", false, "UnsupportedValue", &message)],
        findings: vec![Finding::warning(key, Reason::UnsupportedAction, message)],
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
    }
}

/// What could not be expressed, and what that does.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Names of HTTP attributes.
    http: BTreeSet<String>,
    /// Fields with values that cannot be matched, and why.
    invalid: Vec<String>,
    /// Parts of a DENY policy that deny nothing.
    not_enforced: Vec<String>,
    /// Rules of a DENY policy that deny more than they say.
    wider: Vec<String>,
}

impl Report {
    fn http(&mut self, name: &str) {
        self.http.insert(name.to_owned());
    }

    fn invalid(&mut self, message: String) {
        self.invalid.push(message);
    }

    fn not_enforced(&mut self, part: String) {
        self.not_enforced.push(part);
    }

    fn wider(&mut self, rule: String) {
        self.wider.push(rule);
    }

    /// What is lost, without its consequence.
    fn losses(&self) -> Vec<(Reason, String)> {
        let mut losses = Vec::new();
        if !self.http.is_empty() {
            let found = self.http.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!(
                "ztunnel does not support HTTP attributes (found: {found}). In ambient mode you must use a waypoint proxy to enforce HTTP rules."
            );
            losses.push((Reason::HttpAttribute, message));
        }
        losses.extend(self.invalid.iter().map(|invalid| (Reason::InvalidValue, format!("{invalid}."))));
        losses
    }

    /// What the losses do to the policy.
    fn consequence(&self, action: wire::Action) -> String {
        match action {
            wire::Action::Allow if self.http.is_empty() => {
                "The rule is left out, which allows less than requested.".to_owned()
            }
            wire::Action::Allow => {
                "Within an ALLOW policy, rules matching HTTP attributes are omitted. This will be more restrictive than requested.".to_owned()
            }
            wire::Action::Deny => {
                let nothing = (!self.not_enforced.is_empty())
                    .then(|| format!("{}: not enforced at L4: needs a waypoint.", self.not_enforced.join(", ")));
                let more = (!self.wider.is_empty()).then(|| {
                    format!("{}: enforced without it, which denies more than requested.", self.wider.join(", "))
                });
                nothing.into_iter().chain(more).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn into_converted(self, key: &ObjectRef, action: wire::Action) -> Converted {
        let losses = self.losses();
        let (reason, message) = if losses.is_empty() {
            ("Accepted", "attached to ztunnel".to_owned())
        } else {
            let lost = losses.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join(" ");
            ("UnsupportedValue", format!("{lost} {}", self.consequence(action)))
        };
        let consequence = self.consequence(action);
        let findings = losses
            .into_iter()
            .map(|(reason, message)| Finding::warning(key, reason, format!("{message} {consequence}")))
            .collect();
        Converted { policy: None, findings, conditions: vec![condition("ZtunnelAccepted", true, reason, &message)] }
    }
}
