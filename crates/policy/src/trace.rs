//! Every policy and rule of a decision, for people. The decision itself is that of `decide`; nothing here is on the way of a
//! connection.

use std::sync::Arc;

use model::{Action, Authorization, Match, PolicySet};

use crate::evaluate::{clause_holds, unmet};
use crate::{Connection, Decision, Logging, decide, matches};

/// A decision, with the policies that it was made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// As the proxy decides.
    pub decision: Decision,
    /// Policies in the order in which they are asked: DENY, then ALLOW, each by name. A policy with `dry-run` decides nothing.
    pub policies: Vec<PolicyTrace>,
}

/// A policy that applies to the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTrace {
    pub policy: Arc<Authorization>,
    /// One of its rules holds.
    pub matches: bool,
    /// Its rules, in order.
    pub rules: Vec<RuleTrace>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTrace {
    /// All of its clauses hold.
    pub holds: bool,
    /// Clauses that do not hold, and why. Each alternative of such a clause has conditions that are not met.
    pub unmet: Vec<Unmet>,
}

/// A condition that keeps a rule from holding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// Name of the condition in the proxy's dump, as `principals`; empty for a match without conditions, which holds for no
    /// connection: a waypoint alone could evaluate what stood there.
    pub condition: &'static str,
    /// Values that it wants, or with `not` in its name excludes, separated by commas.
    pub wanted: String,
}

/// Evaluates the policies of a workload for a connection to it, and keeps every step.
#[must_use]
pub fn trace(set: &PolicySet, connection: &Connection) -> Trace {
    let mut policies = set.policies.clone();
    policies.sort_by_cached_key(|policy| (policy.action != Action::Deny, policy.key()));
    let policies = policies.into_iter().map(|policy| PolicyTrace {
        matches: matches(&policy, connection),
        rules: policy.rules.iter().map(|clauses| rule(clauses, connection)).collect(),
        policy,
    });
    Trace { decision: decide(set, connection, Logging::Debug), policies: policies.collect() }
}

fn rule(clauses: &[Vec<Match>], connection: &Connection) -> RuleTrace {
    let failing: Vec<_> = clauses.iter().filter(|clause| !clause_holds(clause, connection)).collect();
    let mut all = Vec::new();
    for m in failing.iter().flat_map(|clause| clause.iter()) {
        let conditions = unmet(m, connection);
        if conditions.is_empty() {
            all.push(Unmet { condition: "", wanted: String::new() });
        }
        all.extend(conditions.into_iter().map(|(condition, wanted)| Unmet { condition, wanted }));
    }
    RuleTrace { holds: failing.is_empty(), unmet: all }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use model::{Scope, StringMatch};

    fn connection(identity: Option<&str>) -> Connection {
        Connection {
            source: "10.0.0.2".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            identity: identity.map(|identity| identity.parse().unwrap()),
        }
    }

    fn policy(name: &str, action: Action, rules: Vec<Vec<Vec<Match>>>) -> Authorization {
        let (name, namespace, scope) = (name.into(), "ns".into(), Scope::Namespace);
        Authorization { name, namespace, scope, action, rules, dry_run: false }
    }

    fn principal(name: &str) -> Match {
        Match { principals: vec![StringMatch::Exact(name.into())], ..Match::default() }
    }

    fn port(port: u16) -> Match {
        Match { destination_ports: vec![port], ..Match::default() }
    }

    fn set(policies: Vec<Authorization>) -> PolicySet {
        PolicySet { policies: policies.into_iter().map(Arc::new).collect(), synced: true, ..PolicySet::default() }
    }

    #[test]
    fn each_rule_says_which_condition_does_not_hold() {
        let web = "cluster.local/ns/ns/sa/web";
        let rules = vec![
            vec![vec![principal(web)], vec![port(80)]],
            vec![vec![principal("other")]],
            vec![vec![Match::default()]],
        ];
        let policies = vec![policy("b", Action::Allow, rules), policy("a", Action::Deny, vec![])];

        let found = trace(&set(policies), &connection(Some("spiffe://cluster.local/ns/ns/sa/web")));

        assert!(!found.decision.is_allowed());
        assert_eq!(found.policies[0].policy.name, "a", "DENY comes first");
        let unmet: Vec<Vec<_>> = found.policies[1]
            .rules
            .iter()
            .map(|rule| rule.unmet.iter().map(|unmet| (unmet.condition, unmet.wanted.as_str())).collect())
            .collect();
        assert_eq!(unmet, [vec![("destinationPorts", "80")], vec![("principals", "other")], vec![("", "")]]);
    }

    fn a_match() -> impl Strategy<Value = Match> {
        let name = prop::sample::select(vec!["cluster.local/ns/ns/sa/web", "cluster.local/ns/ns/sa/db", "ns", "no"]);
        let text = || {
            let name = name.clone();
            prop::collection::vec(
                (name, 0..4_u8).prop_map(|(name, form)| match form {
                    0 => StringMatch::Exact(name.into()),
                    1 => StringMatch::Prefix(name[..2].into()),
                    2 => StringMatch::Suffix(name[name.len() - 2..].into()),
                    _ => StringMatch::Presence(),
                }),
                0..3,
            )
        };
        let ports = || prop::collection::vec(prop::sample::select(vec![80, 8080]), 0..2);
        (text(), text(), text(), text(), ports(), ports()).prop_map(|(a, b, c, d, e, f)| Match {
            namespaces: a,
            not_namespaces: b,
            principals: c,
            not_principals: d,
            destination_ports: e,
            not_destination_ports: f,
            ..Match::default()
        })
    }

    proptest! {
        #[test]
        fn a_rule_holds_exactly_if_nothing_of_it_is_unmet(
            rules in prop::collection::vec(prop::collection::vec(prop::collection::vec(a_match(), 0..3), 0..3), 0..3),
            known in any::<bool>(),
        ) {
            let allow = policy("p", Action::Allow, rules);
            let connection = connection(known.then_some("spiffe://cluster.local/ns/ns/sa/web"));

            let found = trace(&set(vec![allow]), &connection);

            let only = &found.policies[0];
            prop_assert_eq!(only.matches, only.rules.iter().any(|rule| rule.holds));
            prop_assert_eq!(found.decision.is_allowed(), only.matches);
            for rule in &only.rules {
                prop_assert_eq!(rule.holds, rule.unmet.is_empty());
            }
        }
    }
}
