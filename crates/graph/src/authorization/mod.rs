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
//! alternative of HTTP attributes only is an empty match, which node proxies treat as one that does not hold, so that
//! the rule denies nothing; it drops `trustDomains` and so may allow everybody; and it gives `selector: {}` a scope in
//! which nothing refers to the policy. Here the list of alternatives is left out, which every node proxy, Istio's
//! included, treats as one that always holds; trust domains are translated to principals; and `selector: {}` means every
//! workload of the namespace, as the API says.

mod clause;
mod report;
pub(crate) mod value;

use contract::labels::DRY_RUN_ANNOTATION;
use kube_types::core::Condition;
use kube_types::istio::{Action as Declared, AuthorizationPolicy, PolicyTargetReference};
use kube_types::{ObjectRef, StringMap};

use crate::enforcement::Effect;
use crate::finding::{Finding, Reason};
use crate::mesh::Mesh;
use crate::outcome::{Outcome, condition};
use crate::placement::Scope;
use crate::rule::{Action, Authorization, Rule};
use report::Report;

/// Result of the conversion of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// Policy for node proxies; `None` when it is not for them.
    pub(crate) policy: Option<Authorization>,
    /// Enforced rules by rule of the policy; none when the policy is not for node proxies.
    pub(crate) rules: Vec<Vec<Rule>>,
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
    // An empty selector selects the whole namespace, as none does.
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

fn is_for_waypoints(policy: &AuthorizationPolicy) -> bool {
    policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty()
}

/// Returns true if waypoints get the policy: every target is a Service.
pub(crate) fn is_for_services(policy: &AuthorizationPolicy) -> bool {
    let spec = &policy.spec;
    let is_service = |target: &PolicyTargetReference| target.kind == "Service" && matches!(&*target.group, "" | "core");
    is_for_waypoints(policy)
        && spec.selector.is_none()
        && spec.target_ref.iter().chain(&spec.target_refs).all(is_service)
}

const fn is_enforced(action: Declared) -> bool {
    match action {
        Declared::Allow | Declared::Deny => true,
        Declared::Audit | Declared::Custom => false,
    }
}

/// Returns the workloads that a policy is for.
pub(crate) fn scope(mesh: &Mesh, key: &ObjectRef, policy: &AuthorizationPolicy) -> Scope {
    match selector(policy) {
        Some(_) => Scope::Named(key.clone()),
        // Istio: a policy in the root namespace holds in all namespaces.
        None if key.namespace == mesh.root_namespace => Scope::Mesh,
        None => Scope::Namespace(key.namespace.clone()),
    }
}

pub(crate) fn convert(mesh: &Mesh, key: &ObjectRef, policy: &AuthorizationPolicy) -> Converted {
    let action = match policy.spec.action {
        // Before the action: whatever it is, a node proxy must not enforce what was meant for a waypoint.
        _ if is_for_waypoints(policy) => return for_waypoint(key, policy),
        Declared::Allow => Action::Allow,
        Declared::Deny => Action::Deny,
        Declared::Audit => return unsupported_action(key, "AUDIT"),
        Declared::Custom => return unsupported_action(key, "CUSTOM"),
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
    // A value that is not a boolean leaves the policy in force: an unreadable annotation must not open what the policy
    // closes.
    let effect = match dry_run.map(|value| boolean(value)) {
        Some(Some(true)) => Effect::Logged,
        Some(Some(false) | None) | None => effect(&report, action, &rules),
    };
    let mut findings = report.findings(key, action);
    // After the conversion's findings: those are about what is enforced.
    findings.extend(without_effect(key, policy));
    let accepted = vec![report.acceptance(action)];
    let policy = Authorization {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope(mesh, key, policy),
        action,
        rules: rules.concat(),
        dry_run: matches!(effect, Effect::Logged),
    };
    Converted { policy: Some(policy), rules, findings, accepted, effect }
}

/// Enforcement by node proxies of the rules that are left, wherever the policy applies.
fn effect(report: &Report, action: Action, rules: &[Vec<Rule>]) -> Effect {
    let how = report.consequence(action);
    match action {
        // `spec: {}` is how users of Istio deny everything.
        Action::Allow if rules.is_empty() => Effect::whole("allows nothing;"),
        Action::Allow if rules.iter().all(Vec::is_empty) => Effect::partial("allows nothing;", how),
        // A DENY policy without rules is the opposite of an ALLOW policy without rules: it does nothing.
        Action::Deny if rules.is_empty() => {
            Effect::nothing(Outcome::NoRules, "a DENY policy without rules denies nothing")
        }
        Action::Allow | Action::Deny if report.is_whole() => Effect::whole(""),
        Action::Allow | Action::Deny => Effect::partial("", how),
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
        // The API server of a cluster refuses this; a directory of manifests has nobody who does.
        (Reason::Ambiguous, "selector and targetRefs are mutually exclusive: the policy is not enforced")
    } else if is_for_services(policy) {
        return for_services();
    } else {
        (Reason::NeedsWaypoint, "targets other than Services are not supported: the policy is not enforced")
    };
    Converted {
        policy: None,
        rules: Vec::new(),
        findings: vec![Finding::warning(key, reason, message).at("spec")],
        accepted: vec![condition(Outcome::NotAcceptedByWaypoint, message)],
        effect: Effect::nothing(Outcome::Unsupported, message),
    }
}

/// A policy that the waypoints of its services get. What they have put in force is not reported yet, so nothing is claimed;
/// findings are those of the compilation for waypoints.
fn for_services() -> Converted {
    let message = "the waypoints of its services get the policy; whether they have put it in force is not known here";
    Converted {
        policy: None,
        rules: Vec::new(),
        findings: Vec::new(),
        accepted: Vec::new(),
        effect: Effect::nothing(Outcome::AtWaypoints, message),
    }
}

fn unsupported_action(key: &ObjectRef, action: &str) -> Converted {
    let message = format!("ztunnel does not support the {action} action: the policy is not enforced");
    Converted {
        policy: None,
        rules: Vec::new(),
        accepted: vec![condition(Outcome::NotAcceptedByZtunnel, &message)],
        effect: Effect::nothing(Outcome::Unsupported, message.clone()),
        findings: vec![Finding::warning(key, Reason::UnsupportedAction, message).at("spec.action")],
    }
}
