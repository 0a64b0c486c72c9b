use serde_json::{Value, json};

use super::*;
use crate::http::testing::{Client, exact, policy};
use crate::http::{Condition, Operation, PathMatch, Rule, Truth, Values, trace};

/// Rules of one policy whose only rule has this part.
fn to(operation: Value) -> Value {
    json!([{"to": [operation]}])
}

fn from(source: Value) -> Value {
    json!([{"from": [source]}])
}

fn when(condition: Value) -> Value {
    json!([{"when": [condition]}])
}

fn any_of(values: Value) -> Value {
    json!({"anyOf": values})
}

fn texts(values: &[&str]) -> Value {
    json!({"anyOf": values.iter().map(|value| json!({"Exact": value})).collect::<Vec<_>>()})
}

fn prefix(text: &str) -> Value {
    any_of(json!([{"Prefix": text}]))
}

fn path(text: &str) -> Value {
    any_of(json!([{"text": {"Exact": text}}]))
}

fn present() -> Value {
    any_of(json!([{"Presence": []}]))
}

fn unreadable(text: &str) -> Value {
    json!({"unreadable": [text]})
}

/// Answers of one ALLOW policy (does it allow?) and of one DENY policy with the same rules (does it deny?).
fn outcomes(rules: &Value, client: &Client) -> (bool, bool) {
    both(rules, &client.request())
}

fn both(rules: &Value, request: &Request<'_>) -> (bool, bool) {
    let allow = [policy("allow", &json!("allow"), rules.clone())];
    let deny = [policy("deny", &json!("deny"), rules.clone())];
    (decide(allow.iter(), request).decision.is_allowed(), !decide(deny.iter(), request).decision.is_allowed())
}

const HOLDS: (bool, bool) = (true, true);
const FAILS: (bool, bool) = (false, false);
/// Nothing is allowed by it, and everything is denied.
const UNKNOWN: (bool, bool) = (false, true);

#[test]
fn each_field_of_a_source_is_compared_with_the_client() {
    let client = Client::with_claims(json!({}));
    for (source, expected) in [
        (json!({"principals": texts(&["cluster.local/ns/shop/sa/web"])}), HOLDS),
        (json!({"principals": texts(&["spiffe://cluster.local/ns/shop/sa/web"])}), FAILS),
        (json!({"principals": prefix("cluster.local/ns/shop/")}), HOLDS),
        (json!({"principals": present()}), HOLDS),
        (json!({"principals": {"noneOf": [{"Suffix": "/sa/web"}]}}), FAILS),
        (json!({"requestPrincipals": texts(&["https://id/me"])}), HOLDS),
        (json!({"requestPrincipals": texts(&["https://id/you"])}), FAILS),
        (json!({"namespaces": texts(&["shop"])}), HOLDS),
        (json!({"namespaces": texts(&["sho"])}), FAILS),
        (json!({"serviceAccounts": any_of(json!([{"namespace": "shop", "serviceAccount": "web"}]))}), HOLDS),
        (json!({"serviceAccounts": any_of(json!([{"namespace": "bank", "serviceAccount": "web"}]))}), FAILS),
        (json!({"trustDomains": texts(&["cluster.local"])}), HOLDS),
        (json!({"trustDomains": prefix("other")}), FAILS),
        (json!({"ipBlocks": any_of(json!(["10.0.0.0/24"]))}), HOLDS),
        (json!({"ipBlocks": any_of(json!(["192.0.2.0/24"]))}), FAILS),
        (json!({"remoteIpBlocks": any_of(json!(["192.0.2.7/32"]))}), HOLDS),
        (json!({"namespaces": texts(&["shop"]), "ipBlocks": any_of(json!(["192.0.2.0/24"]))}), FAILS),
        (json!({}), UNKNOWN),
    ] {
        assert_eq!(outcomes(&from(source.clone()), &client), expected, "{source}");
    }
}

#[test]
fn a_client_without_identity_or_token_has_no_name() {
    let client = Client { identity: None, ..Client::default() };
    for (source, expected) in [
        (json!({"principals": present()}), FAILS),
        (json!({"principals": {"noneOf": [{"Presence": []}]}}), HOLDS),
        (json!({"namespaces": {"noneOf": [{"Exact": "shop"}]}}), HOLDS),
        (json!({"trustDomains": present()}), FAILS),
        (json!({"requestPrincipals": present()}), FAILS),
        (json!({"requestPrincipals": {"noneOf": [{"Presence": []}]}}), HOLDS),
    ] {
        assert_eq!(outcomes(&from(source.clone()), &client), expected, "{source}");
    }
}

#[test]
fn each_field_of_an_operation_is_compared_with_the_request() {
    let client = Client { authority: "Blocked.com:8080", method: "POST", ..Client::to("/a/b") };
    for (operation, expected) in [
        (json!({"hosts": texts(&["blocked.COM:8080"])}), HOLDS),
        (json!({"hosts": texts(&["blocked.com"])}), FAILS),
        (json!({"hosts": prefix("blocked.com:")}), HOLDS),
        (json!({"hosts": any_of(json!([{"Suffix": ".COM:8080"}]))}), HOLDS),
        (json!({"hosts": any_of(json!([{"Suffix": "a-longer-name-than-blocked.com:8080"}]))}), FAILS),
        (json!({"hosts": present()}), HOLDS),
        (json!({"ports": any_of(json!([80]))}), HOLDS),
        (json!({"ports": {"noneOf": [80]}}), FAILS),
        (json!({"methods": texts(&["POST"])}), HOLDS),
        (json!({"methods": texts(&["post"])}), FAILS),
        (json!({"methods": {"noneOf": [{"Exact": "GET"}]}}), HOLDS),
        (json!({"paths": path("/a/b")}), HOLDS),
        (json!({"paths": path("/A/b")}), FAILS),
        (json!({"paths": any_of(json!([{"template": "/a/{*}"}]))}), HOLDS),
        (json!({"paths": any_of(json!([{"text": {"Suffix": "/b"}}]))}), HOLDS),
        (json!({"methods": texts(&["POST"]), "paths": path("/c")}), FAILS),
        (json!({}), UNKNOWN),
    ] {
        assert_eq!(outcomes(&to(operation.clone()), &client), expected, "{operation}");
    }
}

#[test]
fn each_condition_is_compared_with_its_attribute() {
    let claims = json!({"groups": ["dev", "ops"], "realm": {"role": "admin"}, "level": 3, "ok": true, "n": [3]});
    let client = Client::with_claims(claims).header("x-user", b"ann").header("x-user", b"bob").header("x-empty", b"");
    let claim = |path: Value, value: &str| json!({"requestClaim": {"path": path, "values": texts(&[value])}});
    let header = |name: &str, values: Value| json!({"requestHeader": {"name": name, "values": values}});
    for (condition, expected) in [
        (json!({"sourceIp": any_of(json!(["10.0.0.2/32"]))}), HOLDS),
        (json!({"remoteIp": any_of(json!(["10.0.0.2/32"]))}), FAILS),
        (json!({"sourceNamespace": texts(&["shop"])}), HOLDS),
        (json!({"sourcePrincipal": prefix("cluster.local/")}), HOLDS),
        (json!({"sourceServiceAccount": any_of(json!([{"namespace": "shop", "serviceAccount": "web"}]))}), HOLDS),
        (json!({"sourceTrustDomain": texts(&["cluster"])}), FAILS),
        (json!({"destinationIp": any_of(json!(["10.96.0.0/12"]))}), HOLDS),
        (json!({"destinationPort": any_of(json!([81]))}), FAILS),
        (json!({"connectionSni": texts(&["x"])}), FAILS),
        (json!({"requestPrincipal": texts(&["https://id/me"])}), HOLDS),
        (json!({"requestAudiences": texts(&["bank"])}), HOLDS),
        (json!({"requestAudiences": {"noneOf": [{"Exact": "bank"}]}}), FAILS),
        (json!({"requestPresenter": texts(&["app"])}), HOLDS),
        (header("x-user", texts(&["bob"])), HOLDS),
        (header("x-user", texts(&["ann,bob"])), FAILS),
        (header("x-user", json!({"noneOf": [{"Exact": "bob"}]})), FAILS),
        (header("x-other", json!({"noneOf": [{"Exact": "bob"}]})), HOLDS),
        (header("x-empty", present()), HOLDS),
        (header("x-other", present()), FAILS),
        (claim(json!(["groups"]), "ops"), HOLDS),
        (claim(json!(["groups"]), "op"), FAILS),
        (claim(json!(["realm", "role"]), "admin"), HOLDS),
        (claim(json!(["realm"]), "admin"), FAILS),
        (claim(json!(["level"]), "3"), FAILS),
        (claim(json!(["ok"]), "true"), FAILS),
        (claim(json!(["n"]), "3"), FAILS),
        (claim(json!(["none"]), "x"), FAILS),
        (json!({"unsupported": {"key": "request.time"}}), UNKNOWN),
        (json!({"sourceIp": {}}), UNKNOWN),
    ] {
        assert_eq!(outcomes(&when(condition.clone()), &client), expected, "{condition}");
    }
}

#[test]
fn a_mapped_address_of_the_client_is_the_ipv4_address() {
    let client = Client::default();
    let request = Request { source: "::ffff:10.0.0.2".parse().unwrap(), ..client.request() };
    assert_eq!(both(&from(json!({"ipBlocks": any_of(json!(["10.0.0.0/24"]))})), &request), HOLDS);
}

#[test]
fn lists_are_joined_as_the_api_says() {
    let client = Client::to("/a");
    let (get, post, a, b) = (texts(&["GET"]), texts(&["POST"]), path("/a"), path("/b"));
    let shop = json!({"namespaces": texts(&["shop"])});
    let bank = json!({"namespaces": texts(&["bank"])});
    for (rules, expected) in [
        (json!([]), FAILS),
        (json!([{}]), HOLDS),
        (json!([{"to": [{"methods": post}]}, {"to": [{"methods": get}]}]), HOLDS),
        (json!([{"to": [{"methods": post}, {"paths": a}]}]), HOLDS),
        (json!([{"to": [{"methods": get, "paths": b}]}]), FAILS),
        (json!([{"from": [bank, shop], "to": [{"paths": a}]}]), HOLDS),
        (json!([{"from": [bank], "to": [{"paths": a}]}]), FAILS),
        (
            json!([{"from": [shop], "when": [{"destinationPort": any_of(json!([80]))}, {"sourceIp": any_of(json!(["1.1.1.1/32"]))}]}]),
            FAILS,
        ),
    ] {
        assert_eq!(outcomes(&rules, &client), expected, "{rules}");
    }
}

#[test]
fn a_part_that_cannot_be_evaluated_allows_nothing_and_denies_unless_the_rest_fails() {
    let client = Client::to("/a");
    for (rules, expected) in [
        (to(json!({"paths": unreadable("/{x}")})), UNKNOWN),
        (to(json!({"paths": {"unreadableNot": ["/{x}"]}})), UNKNOWN),
        (to(json!({"paths": {"anyOf": [{"text": {"Exact": "/a"}}], "unreadable": ["/{x}"]}})), HOLDS),
        (to(json!({"paths": unreadable("/{x}"), "methods": texts(&["POST"])})), FAILS),
        (json!([{"to": [{"paths": unreadable("/{x}")}, {"methods": texts(&["GET"])}]}]), HOLDS),
        (json!([{"from": [{"namespaces": texts(&["bank"])}], "to": [{"paths": unreadable("/{x}")}]}]), FAILS),
    ] {
        assert_eq!(outcomes(&rules, &client), expected, "{rules}");
    }
}

#[test]
fn on_a_connection_attributes_of_requests_are_not_known() {
    let client = Client::default();
    for (rules, expected) in [
        (to(json!({"methods": texts(&["GET"])})), UNKNOWN),
        (to(json!({"methods": texts(&["GET"]), "ports": any_of(json!([80]))})), UNKNOWN),
        (to(json!({"methods": texts(&["GET"]), "ports": any_of(json!([81]))})), FAILS),
        (json!([{"from": [{"namespaces": texts(&["bank"])}], "to": [{"methods": texts(&["GET"])}]}]), FAILS),
        (json!([{"from": [{"namespaces": texts(&["shop"])}], "to": [{"methods": texts(&["GET"])}]}]), UNKNOWN),
        (from(json!({"requestPrincipals": present()})), UNKNOWN),
        (when(json!({"requestHeader": {"name": "a", "values": texts(&["x"])}})), UNKNOWN),
        (when(json!({"sourceTrustDomain": texts(&["cluster.local"])})), HOLDS),
        (json!([{}]), HOLDS),
        // An alternative that holds does not save an ALLOW rule with attributes of requests.
        (json!([{"to": [{"methods": texts(&["GET"])}, {"ports": any_of(json!([80]))}]}]), (false, true)),
    ] {
        assert_eq!(both(&rules, &client.tcp()), expected, "{rules}");
    }
    let request = Request { sni: Some("a.example"), ..client.tcp() };
    assert_eq!(both(&when(json!({"connectionSni": texts(&["a.example"])})), &request), HOLDS);
}

#[test]
fn deny_comes_before_allow_and_the_rule_is_named() {
    let client = Client::to("/admin");
    let policies = [
        policy("allow", &json!("allow"), json!([{}])),
        policy("other", &json!("deny"), to(json!({"methods": unreadable("*a*")}))),
        policy("deny", &json!("deny"), json!([{"to": [{"paths": path("/x")}]}, {"to": [{"paths": path("/admin")}]}])),
    ];

    let Decision::Deny(reason) = decide(policies.iter(), &client.request()).decision else { panic!("allowed") };

    // A rule that holds explains more than one that cannot be evaluated.
    assert_eq!(reason, DenyReason::Explicit(RuleRef { policy: &policies[2], rule: 1 }));
    assert_eq!(reason.response_details(), "rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[1]]");
    assert_eq!(reason.to_string(), "explicitly denied by: shop/deny, rule 1");
    let Decision::Deny(reason) = decide(policies[..2].iter(), &client.request()).decision else { panic!("allowed") };
    assert_eq!(reason.code(), "rule_unevaluable");
    assert_eq!(reason.to_string(), "rule 0 of policy shop/other cannot be evaluated; request denied");
}

#[test]
fn an_allow_policy_turns_the_default_to_deny() {
    let client = Client::default();
    let none: [HttpPolicy; 0] = [];
    let (empty, all) = (policy("a", &json!("allow"), json!([])), policy("b", &json!("allow"), json!([{}])));

    assert_eq!(decide(none.iter(), &client.request()).decision, Decision::Allow { by: None });
    let denied = Decision::Deny(DenyReason::NoneAllowed);
    assert_eq!(decide([&empty].into_iter(), &client.request()).decision, denied);
    assert_eq!(DenyReason::NoneAllowed.response_details(), "rbac_access_denied_matched_policy[none]");
    let by = Some(RuleRef { policy: &all, rule: 0 });
    assert_eq!(decide([&empty, &all].into_iter(), &client.request()).decision, Decision::Allow { by });
}

#[test]
fn audit_and_dry_run_only_note() {
    let client = Client::default();
    let dry = HttpPolicy { dry_run: true, ..policy("dry", &json!("deny"), json!([{}])) };
    let audit = policy("audit", &json!("audit"), json!([{}]));

    let verdict = decide([&dry, &audit].into_iter(), &client.request());

    assert_eq!(verdict.decision, Decision::Allow { by: None });
    let denied = Decision::Deny(DenyReason::Explicit(RuleRef { policy: &dry, rule: 0 }));
    assert_eq!(verdict.dry_run, Some(denied));
    assert_eq!(verdict.audit, Some(RuleRef { policy: &audit, rule: 0 }));
    assert_eq!(decide([&audit].into_iter(), &client.request()).dry_run, None);
}

#[test]
fn a_provider_is_asked_before_the_token_is_verified() {
    let client = Client { is_pending: true, ..Client::to("/login") };
    let action = |name: &str| json!({"custom": {"provider": name}});
    let policies = [
        policy("a", &action("opa"), to(json!({"paths": path("/login")}))),
        policy("b", &action("other"), to(json!({"paths": path("/x")}))),
        policy("c", &action("claims"), from(json!({"requestPrincipals": texts(&["x"])}))),
        policy("d", &json!("deny"), json!([{}])),
        HttpPolicy { dry_run: true, ..policy("e", &action("dry"), json!([{}])) },
    ];

    let asked: Vec<_> =
        custom(policies.iter(), &client.request()).map(|(provider, rule)| (provider, rule.rule)).collect();

    assert_eq!(asked, [("opa", 0), ("claims", 0)]);
}

#[test]
fn a_trace_names_each_part_that_does_not_hold() {
    let client = Client::to("/a");
    let operation = Operation {
        paths: Values { any_of: vec![PathMatch::Text(exact("/b"))], ..Values::default() },
        methods: Values { unreadable: vec!["*x*".to_owned()], ..Values::default() },
        ..Operation::default()
    };
    let key = "request.time".to_owned();
    let rule = Rule { to: vec![operation], when: vec![Condition::Unsupported { key }], ..Rule::default() };
    let policy = HttpPolicy { rules: vec![rule, Rule::default()], ..policy("p", &json!("deny"), json!([])) };

    let traced = trace([&policy].into_iter(), &client.request());

    let rules = &traced[0].rules;
    let parts: Vec<_> =
        rules[0].unmet.iter().map(|part| (part.part.as_str(), part.wanted.as_str(), part.holds)).collect();
    assert_eq!(
        parts,
        [
            ("to[0].operation.methods", "\"*x*\"", Truth::Unknown),
            ("to[0].operation.paths", "/b", Truth::No),
            ("when[0] request.time", "", Truth::Unknown),
        ]
    );
    assert_eq!((rules[0].holds, rules[1].holds), (Truth::No, Truth::Yes));
    assert!(rules[1].unmet.is_empty());
}
