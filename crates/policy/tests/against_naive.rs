//! The evaluator against a second one that is written after the text of the rules, word by word.

use ipnet::IpNet;
use model::{Action, Authorization, Match, Scope, ServiceAccountMatch, StringMatch};
use policy::{Connection, matches};
use proptest::prelude::*;

fn naive_string(m: &StringMatch, value: Option<&str>) -> bool {
    let Some(value) = value else { return false };
    match m {
        StringMatch::Exact(x) => x.as_str() == value,
        StringMatch::Prefix(x) => value.len() >= x.len() && &value[..x.len()] == x.as_str(),
        StringMatch::Suffix(x) => value.len() >= x.len() && &value[value.len() - x.len()..] == x.as_str(),
        StringMatch::Presence() => !value.is_empty(),
    }
}

/// One populated field: does it hold? `None` when the list is empty.
fn field<T>(list: &[T], negative: bool, equal: impl Fn(&T) -> bool) -> Option<bool> {
    if list.is_empty() {
        return None;
    }
    let mut any = false;
    for item in list {
        any |= equal(item);
    }
    Some(any != negative)
}

fn naive_match(m: &Match, c: &Connection) -> Option<bool> {
    let id = c.identity.as_ref();
    let principal = id.map(|i| i.to_string().trim_start_matches("spiffe://").to_owned());
    let namespace = id.map_or("", |i| i.namespace());
    let string = |s: &StringMatch| naive_string(s, Some(namespace));
    let who = |s: &StringMatch| naive_string(s, principal.as_deref());
    let account = |a: &ServiceAccountMatch| {
        id.is_some_and(|i| i.namespace() == a.namespace.as_str() && i.service_account() == a.service_account.as_str())
    };
    let source = |n: &IpNet| n.contains(&c.source);
    let destination = |n: &IpNet| n.contains(&c.destination.ip());
    let port = |p: &u16| *p == c.destination.port();
    let fields = [
        field(&m.namespaces, false, string),
        field(&m.not_namespaces, true, string),
        field(&m.principals, false, who),
        field(&m.not_principals, true, who),
        field(&m.service_accounts, false, account),
        field(&m.not_service_accounts, true, account),
        field(&m.source_ips, false, source),
        field(&m.not_source_ips, true, source),
        field(&m.destination_ips, false, destination),
        field(&m.not_destination_ips, true, destination),
        field(&m.destination_ports, false, port),
        field(&m.not_destination_ports, true, port),
    ];
    let populated: Vec<bool> = fields.into_iter().flatten().collect();
    if populated.is_empty() { None } else { Some(populated.into_iter().all(|held| held)) }
}

fn naive(policy: &Authorization, c: &Connection) -> bool {
    for clauses in &policy.rules {
        let mut all = true;
        for clause in clauses {
            // A match without fields is skipped; a clause without matches is true.
            let mut holds = clause.is_empty();
            for m in clause {
                holds |= naive_match(m, c) == Some(true);
            }
            all &= holds;
        }
        if all {
            return true;
        }
    }
    false
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "ba"]).prop_map(str::to_owned)
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    let text =
        prop_oneof![word(), (word(), word()).prop_map(|(ns, sa)| format!("td/ns/{ns}/sa/{sa}")), Just("td/".into())];
    (text, 0..4_u8).prop_map(|(text, kind)| match kind {
        0 => StringMatch::Exact(text.into()),
        1 => StringMatch::Prefix(text.into()),
        2 => StringMatch::Suffix(text.into()),
        _ => StringMatch::Presence(),
    })
}

fn account() -> impl Strategy<Value = ServiceAccountMatch> {
    (word(), word()).prop_map(|(n, s)| ServiceAccountMatch { namespace: n.into(), service_account: s.into() })
}

fn block() -> impl Strategy<Value = IpNet> {
    let blocks = ["10.0.0.0/8", "10.0.0.1/32", "10.0.0.2/31", "0.0.0.0/0", "fd00::/16", "fd00::1/128"];
    prop::sample::select(blocks.to_vec()).prop_map(|b| b.parse().unwrap())
}

/// Mostly nothing: with many conditions hardly any match would hold.
fn few<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::option::weighted(0.25, prop::collection::vec(item, 1..3)).prop_map(Option::unwrap_or_default)
}

fn one_match() -> impl Strategy<Value = Match> {
    let strings = (few(string_match()), few(string_match()), few(string_match()), few(string_match()));
    let blocks = (few(block()), few(block()), few(block()), few(block()));
    let port = || prop::sample::select(vec![80_u16, 81]);
    (strings, blocks, (few(port()), few(port()), few(account()), few(account()))).prop_map(|(s, b, o)| Match {
        namespaces: s.0,
        not_namespaces: s.1,
        principals: s.2,
        not_principals: s.3,
        source_ips: b.0,
        not_source_ips: b.1,
        destination_ips: b.2,
        not_destination_ips: b.3,
        destination_ports: o.0,
        not_destination_ports: o.1,
        service_accounts: o.2,
        not_service_accounts: o.3,
    })
}

fn authorization() -> impl Strategy<Value = Authorization> {
    let clause = || prop::collection::vec(one_match(), 0..3);
    let rule = prop::collection::vec(clause(), 0..3);
    prop::collection::vec(rule, 0..3).prop_map(|rules| Authorization {
        name: "p".into(),
        namespace: "ns".into(),
        scope: Scope::Global,
        action: Action::Allow,
        rules,
        dry_run: false,
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let ip = || prop::sample::select(vec!["10.0.0.1", "10.0.0.3", "192.168.0.1", "fd00::1", "fe80::1"]);
    let identity = prop::option::of((word(), word()));
    (ip(), ip(), prop::sample::select(vec![80_u16, 81, 82]), identity).prop_map(|(source, to, port, who)| Connection {
        source: source.parse().unwrap(),
        destination: (to.parse::<std::net::IpAddr>().unwrap(), port).into(),
        identity: who.map(|(ns, sa)| format!("spiffe://td/ns/{ns}/sa/{sa}").parse().unwrap()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn both_evaluators_agree(policy in authorization(), connection in connection()) {
        prop_assert_eq!(matches(&policy, &connection), naive(&policy, &connection));
    }
}
