//! Decision of a workload's policies on a connection, with the policy that decided.

use std::fmt;

use metrics::counter;
use model::{Action, Authorization, PolicySet, Text};
use tracing::{debug, info, warn};

use crate::{Connection, matches};

/// Connections that were refused because a policy that their destination names is not known.
const UNKNOWN_POLICY: &str = "strake_policy_unknown_total";

/// Connections that were denied because a policy for their destination is invalid.
const INVALID_POLICY: &str = "strake_policy_invalid_total";

/// Level of the line about each decision (`AUTHZ_POLICY_INFO_LOGGING`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Logging {
    /// `debug`.
    #[default]
    Debug,
    /// `info`.
    Info,
}

/// Reason for which a connection was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedBy {
    /// No policy asks for anything.
    NoPolicies,
    /// `namespace/name`.
    Policy(Text),
}

/// Reason for which a connection is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenyReason {
    /// A DENY policy matches.
    Explicit(Text),
    /// There are ALLOW policies and none matches.
    NoneAllowed,
    /// A policy that the destination names has not arrived.
    NotYetKnown(Text),
    /// A policy for the destination was sent, and has a value that cannot be evaluated.
    Invalid(Text),
}

/// May the connection be?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow {
        /// Reason for which it was allowed.
        by: AllowedBy,
    },
    /// No.
    Deny {
        /// `namespace/name` of the policy that decided, if it was one.
        by: Option<Text>,
        /// In words: its `Display` is what logs show.
        reason: DenyReason,
    },
}

impl Decision {
    /// Allowed?
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    pub(crate) fn deny(reason: DenyReason) -> Self {
        let by = match &reason {
            DenyReason::Explicit(policy) | DenyReason::NotYetKnown(policy) | DenyReason::Invalid(policy) => {
                Some(policy.clone())
            }
            DenyReason::NoneAllowed => None,
        };
        Self::Deny { by, reason }
    }
}

impl DenyReason {
    /// Stable: log key, metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Explicit(_) => "explicitly_denied",
            Self::NoneAllowed => "none_allowed",
            Self::NotYetKnown(_) => "policy_not_yet_known",
            Self::Invalid(_) => "policy_invalid",
        }
    }
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit(policy) => write!(f, "explicitly denied by: {policy}"),
            Self::NoneAllowed => f.write_str("allow policies exist, but none allowed"),
            Self::NotYetKnown(policy) => write!(f, "policy {policy} is not known yet"),
            Self::Invalid(policy) => write!(f, "policy {policy} is invalid; connection denied"),
        }
    }
}

/// Evaluates the policies of a workload for a connection to it.
#[must_use]
pub fn decide(set: &PolicySet, connection: &Connection, logging: Logging) -> Decision {
    // Before any rule: a policy that is missing may be the one that denies.
    if let Some(reason) = invalid_policies(set).or_else(|| unknown_policies(set)) {
        return Decision::deny(reason);
    }
    // Istio's order: DENY, then ALLOW. One ALLOW policy turns the default from allow to deny.
    let of = |action: Action, dry_run: bool| {
        set.policies.iter().map(AsRef::as_ref).filter(move |p| p.action == action && p.dry_run == dry_run)
    };
    // A policy with `dry-run` decides nothing. Its lines come first, as an enforced policy may end the evaluation.
    for policy in of(Action::Deny, true).filter(|p| matches(p, connection)) {
        say(logging, "dry-run: deny policy match", policy);
    }
    if let Some(policy) = of(Action::Deny, false).find(|p| matches(p, connection)) {
        say(logging, "deny policy match", policy);
        return Decision::deny(DenyReason::Explicit(policy.key()));
    }
    // Peeked at, as only the existence of one changes the default.
    let mut enforced = of(Action::Allow, false).peekable();
    dry_run_allows(of(Action::Allow, true), enforced.peek().is_some(), connection, logging);
    if enforced.peek().is_none() {
        say_plain(logging, "no allow policies, allow");
        return Decision::Allow { by: AllowedBy::NoPolicies };
    }
    match enforced.find(|p| matches(p, connection)) {
        Some(policy) => {
            say(logging, "allow policy match", policy);
            Decision::Allow { by: AllowedBy::Policy(policy.key()) }
        }
        None => {
            say_plain(logging, "no allow policies matched");
            Decision::deny(DenyReason::NoneAllowed)
        }
    }
}

/// Denies while a policy for the destination is invalid: it is not known what the policy would allow or deny.
fn invalid_policies(set: &PolicySet) -> Option<DenyReason> {
    let first = set.refused.first()?;
    counter!(INVALID_POLICY).increment(1);
    for policy in &set.refused {
        warn!(target: "rbac", policy = %policy, "policy is invalid; connection denied");
    }
    Some(DenyReason::Invalid(first.clone()))
}

/// Refuses while a policy that the destination names is not there. It is on its way (Istio's control plane sends workloads
/// before policies), or it is lost: in both cases it may be the one that denies. Istio's proxy skips it instead. A policy
/// that discovery removed too early is not among these: the store keeps it while a workload names it.
fn unknown_policies(set: &PolicySet) -> Option<DenyReason> {
    let first = set.unknown.first()?;
    counter!(UNKNOWN_POLICY).increment(1);
    if set.synced {
        for policy in &set.unknown {
            warn!(target: "rbac", policy = %policy, "policy is named by a workload and missing; connection refused");
        }
    }
    Some(DenyReason::NotYetKnown(first.clone()))
}

fn dry_run_allows<'a>(
    policies: impl Iterator<Item = &'a Authorization>,
    any_enforced: bool,
    connection: &Connection,
    logging: Logging,
) {
    let (mut exist, mut matched) = (false, false);
    for policy in policies {
        exist = true;
        if matches(policy, connection) {
            matched = true;
            say(logging, "dry-run: allow policy match", policy);
        }
    }
    if exist && !matched && !any_enforced {
        say_plain(logging, "dry-run: no allow policies matched");
    }
}

fn say(logging: Logging, message: &'static str, policy: &Authorization) {
    match logging {
        Logging::Debug => debug!(target: "rbac", policy = %policy, "{message}"),
        Logging::Info => info!(target: "rbac", policy = %policy, "{message}"),
    }
}

fn say_plain(logging: Logging, message: &'static str) {
    match logging {
        Logging::Debug => debug!(target: "rbac", "{message}"),
        Logging::Info => info!(target: "rbac", "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use model::{Match, Scope};

    fn policy(name: &str, action: Action, port: u16) -> Authorization {
        let m = Match { destination_ports: vec![port], ..Match::default() };
        Authorization {
            name: name.into(),
            namespace: "ns".into(),
            scope: Scope::Namespace,
            action,
            rules: vec![vec![vec![m]]],
            dry_run: false,
        }
    }

    fn dry(policy: Authorization) -> Authorization {
        Authorization { dry_run: true, ..policy }
    }

    fn set(policies: impl IntoIterator<Item = Authorization>) -> PolicySet {
        PolicySet { policies: policies.into_iter().map(Arc::new).collect(), synced: true, ..PolicySet::default() }
    }

    fn ask(set: &PolicySet) -> Decision {
        let destination = "10.0.0.1:80".parse().unwrap();
        let connection = Connection { source: "10.0.0.2".parse().unwrap(), destination, identity: None };
        decide(set, &connection, Logging::Debug)
    }

    fn reason(set: &PolicySet) -> String {
        match ask(set) {
            Decision::Deny { reason, .. } => reason.to_string(),
            Decision::Allow { by } => panic!("allowed by {by:?}"),
        }
    }

    #[test]
    fn without_policies_everything_is_allowed() {
        assert_eq!(ask(&set([])), Decision::Allow { by: AllowedBy::NoPolicies });
        assert_eq!(ask(&set([policy("d", Action::Deny, 81)])), Decision::Allow { by: AllowedBy::NoPolicies });
    }

    #[test]
    fn a_matching_deny_wins_over_a_matching_allow_and_is_named() {
        let set = set([policy("a", Action::Allow, 80), policy("d", Action::Deny, 80)]);

        assert_eq!(reason(&set), "explicitly denied by: ns/d");
        assert!(matches!(ask(&set), Decision::Deny { by: Some(by), .. } if by == "ns/d"));
    }

    #[test]
    fn with_allow_policies_one_must_match() {
        let one = set([policy("a", Action::Allow, 81), policy("b", Action::Allow, 80)]);
        let none = set([policy("a", Action::Allow, 81)]);

        assert_eq!(ask(&one), Decision::Allow { by: AllowedBy::Policy("ns/b".into()) });
        assert_eq!(reason(&none), "allow policies exist, but none allowed");
    }

    #[test]
    fn an_allow_policy_without_rules_refuses_everything() {
        let empty = Authorization { rules: vec![], ..policy("a", Action::Allow, 80) };

        assert_eq!(reason(&set([empty])), "allow policies exist, but none allowed");
    }

    #[test]
    fn dry_run_decides_nothing() {
        let only_dry = set([dry(policy("d", Action::Deny, 80)), dry(policy("a", Action::Allow, 81))]);
        let with_enforced = set([dry(policy("a", Action::Allow, 80)), policy("b", Action::Allow, 81)]);

        assert_eq!(ask(&only_dry), Decision::Allow { by: AllowedBy::NoPolicies });
        assert_eq!(reason(&with_enforced), "allow policies exist, but none allowed");
    }

    #[test]
    fn an_unknown_policy_refuses_whether_or_not_the_first_set_is_complete() {
        let late = PolicySet { unknown: vec!["ns/late".into()], synced: false, ..PolicySet::default() };
        let missing = PolicySet { synced: true, ..late.clone() };

        assert_eq!(reason(&late), "policy ns/late is not known yet");
        assert_eq!(reason(&missing), "policy ns/late is not known yet");
    }

    #[test]
    fn a_policy_that_cannot_be_read_refuses_and_is_named() {
        let invalid = PolicySet { refused: vec!["ns/p".into()], ..set([policy("a", Action::Allow, 80)]) };

        assert_eq!(reason(&invalid), "policy ns/p is invalid; connection denied");
        assert!(matches!(ask(&invalid), Decision::Deny { by: Some(by), .. } if by == "ns/p"));
    }
}
