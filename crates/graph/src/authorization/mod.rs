//! Conversion of an AuthorizationPolicy to the policy that node proxies enforce, and the findings about it.
//!
//! A node proxy sees addresses and identities, not requests. Of a policy that asks for more, this is left,
//! as Istio's control plane does it, so that one can take the place of the other:
//!
//! - an ALLOW rule with anything that cannot be matched is left out as a whole, which allows less;
//! - of a DENY rule the fields that cannot be matched are left out, which denies more: a rule of HTTP
//!   attributes only denies every connection. Istio's documentation promises the same.
//!
//! Each of them is reported, by the condition of the policy's status and by a finding.
//!
//! Istio's control plane differs in three places, each of which leaves something open: what is left of a DENY
//! alternative of HTTP attributes only is an empty match, which node proxies take for one that does not hold, so that
//! the rule denies nothing; it drops `trustDomains` and so may allow everybody; and it gives `selector: {}` a scope in
//! which nothing refers to the policy. Here the list of alternatives is left out, which every node proxy, Istio's
//! included, takes for one that always holds; trust domains are translated to principals; and `selector: {}` means every
//! workload of the namespace, as the API says.

mod clause;
mod report;
pub(crate) mod value;

use contract::labels::DRY_RUN_ANNOTATION;
use kube_types::core::{Condition, ConditionStatus};
use kube_types::istio::{Action, AuthorizationPolicy};
use kube_types::{ObjectRef, StringMap};
use proto::security as wire;

use crate::enforcement::{Effect, condition};
use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;
use report::Report;

/// Result of the conversion of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// Policy for node proxies; `None` when it is not for them.
    pub(crate) policy: Option<wire::Authorization>,
    /// Enforced rules by rule of the policy; none when the policy is not for node proxies.
    pub(crate) rules: Vec<Vec<wire::Rule>>,
    pub(crate) findings: Vec<Finding>,
    /// Conditions that Istio's control plane writes.
    pub(crate) accepted: Vec<Condition>,
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
    let rules: Vec<Vec<_>> = places
        .map(|(index, rule)| {
            let place = clause::Place { rule, index, namespace: &key.namespace };
            clause::rules(&place, action, &mut report)
        })
        .collect();
    let dry_run = policy.metadata.annotations.get(DRY_RUN_ANNOTATION);
    let effect = match dry_run.map(|value| boolean(value)) {
        Some(Some(true)) => Effect::Logged,
        Some(Some(false) | None) | None => effect(&report, action, &rules),
    };
    let scope = if selector(policy).is_some() {
        wire::Scope::WorkloadSelector
    } else if key.namespace == mesh.root_namespace {
        wire::Scope::Global
    } else {
        wire::Scope::Namespace
    };
    let mut findings = report.findings(key, action);
    findings.extend(without_effect(key, policy));
    let (reason, message) = report.acceptance(action);
    let policy = wire::Authorization {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope.into(),
        action: action.into(),
        rules: rules.concat(),
        dry_run: matches!(effect, Effect::Logged),
        extensions: Vec::new(),
    };
    let accepted = vec![condition("ZtunnelAccepted", ConditionStatus::True, reason, &message)];
    Converted { policy: Some(policy), rules, findings, accepted, effect }
}

/// Enforcement by node proxies of the rules that are left, wherever the policy applies.
fn effect(report: &Report, action: wire::Action, rules: &[Vec<wire::Rule>]) -> Effect {
    let how = report.consequence(action);
    match action {
        wire::Action::Allow if rules.is_empty() => Effect::whole("allows nothing;"),
        wire::Action::Allow if rules.iter().all(Vec::is_empty) => Effect::partial("allows nothing;", how),
        wire::Action::Deny if rules.is_empty() => {
            Effect::nothing("NoRules", "a DENY policy without rules denies nothing")
        }
        wire::Action::Allow | wire::Action::Deny if report.is_whole() => Effect::whole(""),
        wire::Action::Allow | wire::Action::Deny => Effect::partial("", how),
    }
}

/// Parses a boolean as Go does. An annotation that does not parse leaves the policy in force.
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
    if let Some(value) = policy.metadata.annotations.get(DRY_RUN_ANNOTATION).filter(|value| boolean(value).is_none()) {
        let message =
            format!("invalid value {value:?} of {DRY_RUN_ANNOTATION}: expected true or false; the policy is enforced");
        let path = format!("metadata.annotations[{DRY_RUN_ANNOTATION:?}]");
        findings.push(Finding::warning(key, Reason::InvalidValue, message).at(path));
    }
    if policy.spec.provider.is_some() {
        let message = "provider is used by the CUSTOM action only: it has no effect";
        findings.push(Finding::warning(key, Reason::Ignored, message).at("spec.provider"));
    }
    findings
}

fn for_waypoint(key: &ObjectRef, policy: &AuthorizationPolicy) -> Converted {
    let (reason, message) = if policy.spec.selector.is_some() {
        (Reason::Ambiguous, "selector and targetRefs are mutually exclusive: the policy is not enforced")
    } else {
        (Reason::NeedsWaypoint, "targetRefs is not supported: there are no waypoints, the policy is not enforced")
    };
    Converted {
        policy: None,
        rules: Vec::new(),
        findings: vec![Finding::warning(key, reason, message).at("spec")],
        accepted: vec![condition("WaypointAccepted", ConditionStatus::False, "UnsupportedValue", message)],
        effect: Effect::nothing("UnsupportedValue", message),
    }
}

fn unsupported_action(key: &ObjectRef, action: &str) -> Converted {
    let message = format!("ztunnel does not support the {action} action: the policy is not enforced");
    Converted {
        policy: None,
        rules: Vec::new(),
        accepted: vec![condition("ZtunnelAccepted", ConditionStatus::False, "UnsupportedValue", &message)],
        effect: Effect::nothing("UnsupportedValue", message.clone()),
        findings: vec![Finding::warning(key, Reason::UnsupportedAction, message).at("spec.action")],
    }
}
