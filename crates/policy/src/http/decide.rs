//! Decision of policies on a request, with the rule that decided, in the order of Envoy under Istio: CUSTOM, before tokens are
//! verified; then DENY, then ALLOW; AUDIT beside.

use std::fmt;

use super::evaluate::matching_rule;
use super::{Action, HttpPolicy, Request};

/// Status of the answer to a request that is denied.
pub const DENIED_STATUS: u16 = 403;

/// Body of the answer to a request that is denied, and the reason for which a TCP connection is closed.
pub const DENIED_BODY: &str = "RBAC: access denied";

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'p> {
    pub policy: &'p HttpPolicy,
    /// Its place among the policy's rules.
    pub rule: usize,
}

impl fmt::Display for RuleRef<'_> {
    /// As in Envoy's response details: `ns[shop]-policy[deny]-rule[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ns[{}]-policy[{}]-rule[{}]", self.policy.namespace, self.policy.name, self.rule)
    }
}

/// Reason for which a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyReason<'p> {
    /// A rule of a DENY policy holds.
    Explicit(RuleRef<'p>),
    /// A rule of a DENY policy cannot be evaluated for this request.
    Unevaluable(RuleRef<'p>),
    /// There are ALLOW policies, and none matches.
    NoneAllowed,
}

impl DenyReason<'_> {
    /// Stable: log key, metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Explicit(_) => "explicitly_denied",
            Self::Unevaluable(_) => "rule_unevaluable",
            Self::NoneAllowed => "none_allowed",
        }
    }

    /// Response details for the access log, as Envoy writes them.
    #[must_use]
    pub fn response_details(&self) -> String {
        match self {
            Self::Explicit(rule) | Self::Unevaluable(rule) => format!("rbac_access_denied_matched_policy[{rule}]"),
            Self::NoneAllowed => "rbac_access_denied_matched_policy[none]".to_owned(),
        }
    }
}

impl fmt::Display for DenyReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit(RuleRef { policy, rule }) => write!(f, "explicitly denied by: {policy}, rule {rule}"),
            Self::Unevaluable(RuleRef { policy, rule }) => {
                write!(f, "rule {rule} of policy {policy} cannot be evaluated; request denied")
            }
            Self::NoneAllowed => f.write_str("allow policies exist, but none allowed"),
        }
    }
}

/// May the request be?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'p> {
    /// Yes.
    Allow {
        /// Rule of an ALLOW policy; `None` if there is no such policy.
        by: Option<RuleRef<'p>>,
    },
    /// No.
    Deny(DenyReason<'p>),
}

impl Decision<'_> {
    /// Allowed?
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

/// A decision, and what is only noted about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'p> {
    pub decision: Decision<'p>,
    /// Decision if the policies with `dry_run` were in force too; `None` if there are none.
    pub dry_run: Option<Decision<'p>>,
    /// Rule of an AUDIT policy that matches.
    pub audit: Option<RuleRef<'p>>,
}

/// Evaluates DENY, ALLOW and AUDIT policies that are for the request, once its token is verified. Of several that match, the
/// first one is named.
#[must_use]
pub fn decide<'p>(policies: impl Iterator<Item = &'p HttpPolicy> + Clone, request: &Request<'_>) -> Verdict<'p> {
    let has_dry_run = policies.clone().any(|policy| policy.dry_run && is_deny_or_allow(policy));
    let enforced = policies.clone().filter(|policy| !policy.dry_run);
    let mut audits = enforced.clone().filter(|policy| policy.action == Action::Audit);
    Verdict {
        decision: deny_then_allow(enforced, request),
        dry_run: has_dry_run.then(|| deny_then_allow(policies, request)),
        audit: audits.find_map(|policy| first_rule(policy, request).map(|(rule, _)| rule)),
    }
}

/// CUSTOM policies whose providers have to be asked, in order, before the request's token is verified: each of them may deny
/// it. A rule that cannot be evaluated asks too.
pub fn custom<'p>(
    policies: impl Iterator<Item = &'p HttpPolicy>,
    request: &Request<'_>,
) -> impl Iterator<Item = (&'p str, RuleRef<'p>)> {
    policies.filter(|policy| !policy.dry_run).filter_map(|policy| match &policy.action {
        Action::Custom { provider } => first_rule(policy, request).map(|(rule, _)| (provider.as_str(), rule)),
        Action::Allow | Action::Deny | Action::Audit => None,
    })
}

fn deny_then_allow<'p>(policies: impl Iterator<Item = &'p HttpPolicy> + Clone, request: &Request<'_>) -> Decision<'p> {
    let denies = policies.clone().filter(|policy| policy.action == Action::Deny);
    let mut unevaluable = None;
    for (rule, is_certain) in denies.filter_map(|policy| first_rule(policy, request)) {
        if is_certain {
            return Decision::Deny(DenyReason::Explicit(rule));
        }
        unevaluable = unevaluable.or(Some(rule));
    }
    if let Some(rule) = unevaluable {
        return Decision::Deny(DenyReason::Unevaluable(rule));
    }
    // One ALLOW policy turns the default from allow to deny.
    let mut allows = policies.filter(|policy| policy.action == Action::Allow).peekable();
    if allows.peek().is_none() {
        return Decision::Allow { by: None };
    }
    match allows.find_map(|policy| first_rule(policy, request)) {
        Some((rule, _)) => Decision::Allow { by: Some(rule) },
        None => Decision::Deny(DenyReason::NoneAllowed),
    }
}

fn first_rule<'p>(policy: &'p HttpPolicy, request: &Request<'_>) -> Option<(RuleRef<'p>, bool)> {
    matching_rule(policy, request).map(|(rule, is_certain)| (RuleRef { policy, rule }, is_certain))
}

const fn is_deny_or_allow(policy: &HttpPolicy) -> bool {
    match policy.action {
        Action::Allow | Action::Deny => true,
        Action::Audit | Action::Custom { .. } => false,
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
