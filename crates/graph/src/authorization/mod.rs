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
use kube_api::istio::{Action, AuthorizationPolicy, AuthorizationRule};
use proto::security as wire;

use crate::enforcement::{Effect, condition};
use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;

const DRY_RUN: &str = "istio.io/dry-run";

/// What becomes of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// What node proxies get; nothing when the policy is not for them.
    pub(crate) policy: Option<wire::Authorization>,
    pub(crate) findings: Vec<Finding>,
    /// As Istio's control plane writes them.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) effect: Effect,
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
    let rules: Vec<_> = places
        .flat_map(|(index, rule)| {
            let place = clause::Place { rule, index, namespace: &key.namespace };
            clause::rules(&place, action, &mut report)
        })
        .collect();
    let dry_run = policy.metadata.annotations.get(DRY_RUN);
    let effect = match dry_run.map(|value| boolean(value)) {
        Some(Some(true)) => Effect::Logged,
        Some(Some(false) | None) | None => report.effect(action, &policy.spec.rules, &rules),
    };
    let scope = if selector(policy).is_some() {
        wire::Scope::WorkloadSelector
    } else if key.namespace == mesh.root_namespace {
        wire::Scope::Global
    } else {
        wire::Scope::Namespace
    };
    let mut converted = report.into_converted(key, action, effect);
    converted.findings.extend(without_effect(key, policy));
    converted.policy = Some(wire::Authorization {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules,
        dry_run: dry_run.is_some_and(|value| boolean(value) == Some(true)),
        extensions: Vec::new(),
    });
    converted
}

/// As Go reads booleans; what it cannot read leaves the policy in force.
fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Settings of a policy for node proxies that count for nothing.
fn without_effect(key: &ObjectRef, policy: &AuthorizationPolicy) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(value) = policy.metadata.annotations.get(DRY_RUN).filter(|value| boolean(value).is_none()) {
        let message = format!("{DRY_RUN} is {value:?}, true or false is expected: the policy is enforced");
        findings.push(Finding::warning(key, Reason::InvalidValue, message));
    }
    if policy.spec.provider.is_some() {
        let message = "provider counts for the action CUSTOM only: it has no effect";
        findings.push(Finding::warning(key, Reason::Ignored, message));
    }
    findings
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
        effect: Effect::nothing("UnsupportedValue", message),
    }
}

fn unsupported_action(key: &ObjectRef, action: &str) -> Converted {
    let message = format!("ztunnel does not support the {action} action: the policy is not enforced");
    Converted {
        policy: None,
        conditions: vec![condition("ZtunnelAccepted", false, "UnsupportedValue", &message)],
        effect: Effect::nothing("UnsupportedValue", message.clone()),
        findings: vec![Finding::warning(key, Reason::UnsupportedAction, message)],
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
    /// How many rules of a DENY policy deny nothing as a whole.
    dead_rules: usize,
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

    /// What node proxies do with what is left of the policy, whatever it selects.
    fn effect(&self, action: wire::Action, asked: &[AuthorizationRule], left: &[wire::Rule]) -> Effect {
        let how = self.consequence(action);
        let is_whole = self.losses().is_empty();
        match action {
            wire::Action::Allow if asked.is_empty() => Effect::Whole { what: "allows nothing" },
            wire::Action::Allow if left.is_empty() => Effect::Partial { what: "allows nothing", how },
            wire::Action::Deny if asked.is_empty() => {
                Effect::nothing("NoRules", "a DENY policy without rules denies nothing")
            }
            wire::Action::Deny if self.dead_rules == asked.len() => Effect::nothing("UnsupportedValue", how),
            wire::Action::Allow | wire::Action::Deny if is_whole => Effect::Whole { what: "" },
            wire::Action::Allow | wire::Action::Deny => Effect::Partial { what: "", how },
        }
    }

    fn into_converted(self, key: &ObjectRef, action: wire::Action, effect: Effect) -> Converted {
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
        let conditions = vec![condition("ZtunnelAccepted", true, reason, &message)];
        Converted { policy: None, findings, conditions, effect }
    }
}
