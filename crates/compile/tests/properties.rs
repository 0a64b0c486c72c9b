//! Conditions and findings about a policy, compared with the decisions of the proxy's own evaluator about connections.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use kube_types::Resource;
use kube_types::istio::{Action, AuthorizationPolicy, AuthorizationRule, Operation, RuleFrom, RuleSource, RuleTo};
use model::{Authorization, Match, Scope};
use policy::Connection;
use prop::sample::select;
use proptest::prelude::*;
use proxy::{Told, resources};

static MESH: LazyLock<Vec<Resource>> = LazyLock::new(|| resources(include_str!("support/bookshop.yaml")));

const POLICY: &str = "AuthorizationPolicy foo/p";

/// Ports of connections; 8000 is only the Service's in front of the web server.
const PORTS: [u16; 4] = [8000, 8080, 9000, 27017];

fn policy(action: Action, rules: Vec<AuthorizationRule>) -> Resource {
    let mut policy = AuthorizationPolicy::default();
    (policy.metadata.name, policy.metadata.namespace) = ("p".to_owned(), "foo".to_owned());
    policy.spec.selector =
        Some(kube_types::istio::WorkloadSelector { match_labels: [("app".to_owned(), "httpbin".to_owned())].into() });
    (policy.spec.action, policy.spec.rules) = (action, rules);
    Resource::AuthorizationPolicy(Arc::new(policy))
}

fn told(resource: Resource) -> Told {
    let mut told = Told::new();
    MESH.iter().cloned().for_each(|resource| told.compiler.apply(resource));
    told.compiler.apply(resource);
    told.settle();
    told
}

/// Mostly nothing: with many conditions hardly any rule would match.
fn few(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let list = prop::collection::vec(select(values.to_vec()).prop_map(str::to_owned), 1..3);
    prop::option::weighted(0.3, list).prop_map(Option::unwrap_or_default)
}

const PRINCIPALS: &[&str] = &[
    "cluster.local/ns/foo/sa/curl",
    "cluster.local/ns/bar/sa/curl",
    "cluster.local/ns/ghost/sa/curl",
    "spiffe://cluster.local/ns/foo/sa/curl",
    "other/ns/foo/sa/curl",
    "*",
    "*/sa/curl",
    "cluster.local/ns/bar/*",
    "other/*",
];
const NAMESPACES: &[&str] = &["foo", "bar", "ghost", "*", "b*"];
const ACCOUNTS: &[&str] = &["curl", "bar/curl", "ghost/curl", "foo/ghost"];
const DOMAINS: &[&str] = &["cluster.local", "other", "cluster*"];
const BLOCKS: &[&str] = &["10.0.0.0/8", "10.3.0.1", "192.168.0.0/16", "::ffff:10.3.0.1"];
const NUMBERS: &[&str] = &["8000", "8080", "9000"];

fn source() -> impl Strategy<Value = RuleSource> {
    let positive = (few(PRINCIPALS), few(NAMESPACES), few(ACCOUNTS), few(DOMAINS), few(BLOCKS));
    let negative = (few(PRINCIPALS), few(NAMESPACES), few(ACCOUNTS), few(DOMAINS), few(BLOCKS));
    (positive, negative)
        .prop_map(|(is, not)| RuleSource {
            principals: is.0,
            namespaces: is.1,
            service_accounts: is.2,
            trust_domains: is.3,
            ip_blocks: is.4,
            not_principals: not.0,
            not_namespaces: not.1,
            not_service_accounts: not.2,
            not_trust_domains: not.3,
            not_ip_blocks: not.4,
            ..RuleSource::default()
        })
        .prop_filter("says something", |source| *source != RuleSource::default())
}

fn operation() -> impl Strategy<Value = Operation> {
    (few(NUMBERS), few(NUMBERS))
        .prop_map(|(ports, not_ports)| Operation { ports, not_ports, ..Operation::default() })
        .prop_filter("says something", |operation| *operation != Operation::default())
}

fn rules() -> impl Strategy<Value = Vec<AuthorizationRule>> {
    let from = prop::collection::vec(source().prop_map(|source| RuleFrom { source }), 0..3);
    let to = prop::collection::vec(operation().prop_map(|operation| RuleTo { operation }), 0..3);
    let rule = (from, to).prop_map(|(from, to)| AuthorizationRule { from, to, when: Vec::new() });
    prop::collection::vec(rule, 1..3)
}

/// Every connection that can be: peers that exist, those that could, and some without identity.
fn admitted(told: &Told, existing: bool) -> Vec<bool> {
    let accounts: &[&str] = if existing {
        &["foo/curl", "foo/httpbin", "bar/curl", "bar/httpbin", "legacy/curl"]
    } else {
        &["foo/curl", "foo/ghost", "foo/x", "bar/curl", "bar/x", "ghost/curl", "ghost/x", "legacy/curl", "bx/x"]
    };
    let peers = accounts.iter().chain(&["10.3.0.1", "10.0.0.1", "192.168.0.1", "172.16.0.1"]);
    let ports = || PORTS.into_iter().filter(|port| *port != 8000);
    peers.flat_map(|peer| ports().map(|port| told.admits(peer, "foo/httpbin", port))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_deny_policy_that_is_said_never_to_match_denies_nothing(rules in rules()) {
        let told = told(policy(Action::Deny, rules));

        if told.enforced(POLICY) == "False NeverMatches" {
            prop_assert!(admitted(&told, false).iter().all(|admitted| *admitted), "{}", told.message(POLICY));
        }
    }

    #[test]
    fn an_allow_policy_that_is_said_to_allow_nothing_allows_nothing_that_exists(rules in rules()) {
        let told = told(policy(Action::Allow, rules));

        if told.message(POLICY).starts_with("allows nothing") {
            let existing = told.message(POLICY).starts_with("currently allows nothing");
            prop_assert!(admitted(&told, existing).iter().all(|admitted| !admitted), "{}", told.message(POLICY));
        }
    }

    #[test]
    fn an_address_is_in_a_block_or_not_whether_it_came_by_discovery_or_from_a_file(
        (text, four) in blocks(),
        source in select(vec!["10.1.2.3", "10.1.2.4", "10.200.0.1", "::ffff:10.1.2.3", "2001:db8::1", "::1"]),
    ) {
        let source: IpAddr = source.parse().unwrap();
        let expected = four.is_some_and(|block| block.contains(&source.to_canonical()));
        let connection = Connection { source, destination: "10.1.0.1:80".parse().unwrap(), identity: None };
        let file: Match = serde_json::from_value(serde_json::json!({"sourceIps": [text]})).unwrap();
        let file = Authorization {
            name: "p".into(), namespace: "foo".into(), scope: Scope::Namespace, action: model::Action::Deny,
            rules: vec![vec![vec![file]]], dry_run: false,
        };
        prop_assert_eq!(policy::matches(&file, &connection), expected, "file: {}", text);

        let rule = AuthorizationRule {
            from: vec![RuleFrom { source: RuleSource { ip_blocks: vec![text.clone()], ..RuleSource::default() } }],
            ..AuthorizationRule::default()
        };
        let told = told(policy(Action::Deny, vec![rule]));
        prop_assert_eq!(!told.admits(&source.to_string(), "foo/httpbin", 8080), expected, "discovery: {}", text);
    }
}

/// The text of a block, perhaps as IPv6, and the block that it means.
fn blocks() -> impl Strategy<Value = (String, Option<ipnet::IpNet>)> {
    let address = select(vec!["10.1.2.3", "10.0.0.0", "192.168.7.7"]);
    (address, 0..=32_u8, 0..3_u8).prop_map(|(address, length, form)| {
        let block = format!("{address}/{length}").parse::<ipnet::IpNet>().unwrap();
        match form {
            0 => (format!("{address}/{length}"), Some(block)),
            1 => (format!("::ffff:{address}/{}", length + 96), Some(block)),
            _ => (format!("::ffff:{address}"), Some(format!("{address}/32").parse().unwrap())),
        }
    })
}

#[test]
fn a_block_that_nobody_can_read_is_refused_by_every_way() {
    for text in ["::ffff:10.0.0.5/24", "10.0.0.0/33", "x"] {
        assert!(serde_json::from_value::<Match>(serde_json::json!({"sourceIps": [text]})).is_err(), "{text}");
        let source = RuleSource { ip_blocks: vec![text.to_owned()], ..RuleSource::default() };
        let rule = AuthorizationRule { from: vec![RuleFrom { source }], ..AuthorizationRule::default() };
        let told = told(policy(Action::Deny, vec![rule]));
        assert!(told.findings(POLICY).iter().any(|(code, _)| *code == "invalid_value"), "{text}");
        assert!(!told.admits("foo/curl", "foo/httpbin", 8080), "{text}: a DENY is wider without it");
    }
}
