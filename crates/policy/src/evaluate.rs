//! Does one policy match a connection? Nothing else: what a match means is in `decide`.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Authorization, Match, ServiceAccountMatch, StringMatch};

use crate::Connection;

/// Any rule, of which all clauses hold. A policy without rules never matches.
#[must_use]
pub fn matches(policy: &Authorization, connection: &Connection) -> bool {
    policy.rules.iter().any(|clauses| clauses.iter().all(|clause| clause_holds(clause, connection)))
}

/// Any match. A clause without matches holds.
pub(crate) fn clause_holds(clause: &[Match], connection: &Connection) -> bool {
    clause.is_empty() || clause.iter().any(|m| match_holds(m, connection))
}

/// All conditions. A match without conditions does not hold.
fn match_holds(m: &Match, connection: &Connection) -> bool {
    let namespace = connection.identity.as_ref().map_or("", |id| id.namespace());
    let port = connection.destination.port();
    // Istio's control plane sends an empty match in place of conditions that only a waypoint can evaluate; such a rule
    // must not hold for every connection.
    !m.is_empty()
        && any_of(&m.namespaces, |s| s.matches(namespace))
        && none_of(&m.not_namespaces, |s| s.matches(namespace))
        && any_of(&m.principals, |s| is_principal(s, connection))
        && none_of(&m.not_principals, |s| is_principal(s, connection))
        && any_of(&m.service_accounts, |a| is_account(a, connection))
        && none_of(&m.not_service_accounts, |a| is_account(a, connection))
        && any_of(&m.source_ips, |net| is_in(net, connection.source))
        && none_of(&m.not_source_ips, |net| is_in(net, connection.source))
        && any_of(&m.destination_ips, |net| is_in(net, connection.destination.ip()))
        && none_of(&m.not_destination_ips, |net| is_in(net, connection.destination.ip()))
        && any_of(&m.destination_ports, |p| *p == port)
        && none_of(&m.not_destination_ports, |p| *p == port)
}

/// Conditions of a match that do not hold: name of the field, and values that it wants. Empty for a match that holds, and for
/// one without conditions, which does not.
pub(crate) fn unmet(m: &Match, connection: &Connection) -> Vec<(&'static str, String)> {
    // Each condition alone, by the same rule as all of them together.
    let alone = [
        ("namespaces", join(&m.namespaces), Match { namespaces: m.namespaces.clone(), ..Match::default() }),
        (
            "notNamespaces",
            join(&m.not_namespaces),
            Match { not_namespaces: m.not_namespaces.clone(), ..Match::default() },
        ),
        ("principals", join(&m.principals), Match { principals: m.principals.clone(), ..Match::default() }),
        (
            "notPrincipals",
            join(&m.not_principals),
            Match { not_principals: m.not_principals.clone(), ..Match::default() },
        ),
        (
            "serviceAccounts",
            join(&m.service_accounts),
            Match { service_accounts: m.service_accounts.clone(), ..Match::default() },
        ),
        (
            "notServiceAccounts",
            join(&m.not_service_accounts),
            Match { not_service_accounts: m.not_service_accounts.clone(), ..Match::default() },
        ),
        ("sourceIps", join(&m.source_ips), Match { source_ips: m.source_ips.clone(), ..Match::default() }),
        (
            "notSourceIps",
            join(&m.not_source_ips),
            Match { not_source_ips: m.not_source_ips.clone(), ..Match::default() },
        ),
        (
            "destinationIps",
            join(&m.destination_ips),
            Match { destination_ips: m.destination_ips.clone(), ..Match::default() },
        ),
        (
            "notDestinationIps",
            join(&m.not_destination_ips),
            Match { not_destination_ips: m.not_destination_ips.clone(), ..Match::default() },
        ),
        (
            "destinationPorts",
            join(&m.destination_ports),
            Match { destination_ports: m.destination_ports.clone(), ..Match::default() },
        ),
        (
            "notDestinationPorts",
            join(&m.not_destination_ports),
            Match { not_destination_ports: m.not_destination_ports.clone(), ..Match::default() },
        ),
    ];
    let fails = |m: &Match| !m.is_empty() && !match_holds(m, connection);
    alone.into_iter().filter(|(_, _, m)| fails(m)).map(|(name, wanted, _)| (name, wanted)).collect()
}

fn join<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn any_of<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

fn none_of<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    !list.iter().any(holds)
}

/// Without identity no value holds, not even "present".
fn is_principal(wanted: &StringMatch, connection: &Connection) -> bool {
    connection.identity.as_ref().is_some_and(|id| wanted.matches(id.principal()))
}

fn is_account(wanted: &ServiceAccountMatch, connection: &Connection) -> bool {
    connection
        .identity
        .as_ref()
        .is_some_and(|id| wanted.namespace == *id.namespace() && wanted.service_account == *id.service_account())
}

fn is_in(net: &IpNet, ip: IpAddr) -> bool {
    // A dual-stack socket writes IPv4 addresses as `::ffff:a.b.c.d`, policies as `a.b.c.d`.
    net.contains(&ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Action, Scope};

    fn policy(rules: Vec<Vec<Vec<Match>>>) -> Authorization {
        let (name, namespace) = ("p".into(), "ns".into());
        Authorization { name, namespace, scope: Scope::Global, action: Action::Allow, rules, dry_run: false }
    }

    fn from(identity: Option<&str>) -> Connection {
        Connection {
            source: "192.168.1.5".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            identity: identity.map(|id| id.parse().unwrap()),
        }
    }

    fn known() -> Connection {
        from(Some("spiffe://td/ns/shop/sa/web"))
    }

    fn port(port: u16) -> Match {
        Match { destination_ports: vec![port], ..Match::default() }
    }

    fn holds(m: Match, connection: &Connection) -> bool {
        matches(&policy(vec![vec![vec![m]]]), connection)
    }

    #[test]
    fn a_policy_without_rules_never_matches_and_a_rule_without_clauses_always() {
        assert!(!matches(&policy(vec![]), &known()));
        assert!(matches(&policy(vec![vec![]]), &known()));
        assert!(matches(&policy(vec![vec![vec![]]]), &known()));
    }

    #[test]
    fn a_match_without_conditions_never_holds() {
        assert!(!holds(Match::default(), &known()));
        assert!(matches(&policy(vec![vec![vec![Match::default(), port(8080)]]]), &known()));
    }

    #[test]
    fn rules_and_matches_are_alternatives_and_clauses_are_not() {
        assert!(matches(&policy(vec![vec![vec![port(1)]], vec![vec![port(8080)]]]), &known()));
        assert!(matches(&policy(vec![vec![vec![port(1), port(8080)]]]), &known()));
        assert!(!matches(&policy(vec![vec![vec![port(1)], vec![port(8080)]]]), &known()));
    }

    #[test]
    fn conditions_of_a_match_must_all_hold() {
        let inside = vec!["192.168.0.0/16".parse().unwrap()];
        let both = Match { source_ips: inside.clone(), ..port(8080) };
        let neither = Match { source_ips: inside, ..port(1) };

        assert!(holds(both, &known()));
        assert!(!holds(neither, &known()));
    }

    #[test]
    fn a_principal_is_the_identity_without_its_scheme() {
        let exact = |text: &str| Match { principals: vec![StringMatch::Exact(text.into())], ..Match::default() };

        assert!(holds(exact("td/ns/shop/sa/web"), &known()));
        assert!(!holds(exact("spiffe://td/ns/shop/sa/web"), &known()));
        assert!(!holds(exact("TD/ns/shop/sa/web"), &known()));
    }

    #[test]
    fn not_present_holds_exactly_for_plain_text() {
        let strict = Match { not_principals: vec![StringMatch::Presence()], ..Match::default() };

        assert!(holds(strict.clone(), &from(None)));
        assert!(!holds(strict, &known()));
    }

    #[test]
    fn without_identity_the_namespace_is_empty_and_no_account_holds() {
        let suffix = Match { namespaces: vec![StringMatch::Suffix("".into())], ..Match::default() };
        let account = ServiceAccountMatch { namespace: "shop".into(), service_account: "web".into() };
        let account = Match { service_accounts: vec![account], ..Match::default() };

        assert!(holds(suffix, &from(None)));
        assert!(!holds(account.clone(), &from(None)));
        assert!(holds(account, &from(Some("spiffe://other/ns/shop/sa/web"))));
    }

    #[test]
    fn a_mapped_ipv4_source_is_compared_as_ipv4() {
        let inside = Match { source_ips: vec!["192.168.0.0/16".parse().unwrap()], ..Match::default() };
        let mapped = Connection { source: "::ffff:192.168.1.5".parse().unwrap(), ..known() };

        assert!(holds(inside, &mapped));
    }
}
