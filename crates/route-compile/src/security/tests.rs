//! Manifests as users write them, and what a waypoint makes of them.

use std::net::SocketAddr;

use http::HeaderMap;
use kube_types::istio::AuthorizationPolicy;
use policy::http::{Authentication, Http, HttpPolicy, Request, Token, decide};
use serde_json::{Value, json};

use super::*;
use crate::Finding;

pub(super) fn settings() -> Settings {
    Settings {
        trust_domain: "mesh.example".into(),
        trust_domain_aliases: vec!["old.example".into()],
        root_namespace: "istio-system".into(),
        waypoint_classes: vec!["istio-waypoint".into(), "strake-waypoint".into()],
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(yaml: &str) -> T {
    let value: Value = serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    serde_json::from_value(value).unwrap()
}

/// Field and code of each finding.
pub(super) fn codes(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{} {}", finding.origin.field, finding.reason.code())).collect()
}

/// Compiles an AuthorizationPolicy of this specification, in namespace `shop`.
fn authorize(spec: &Value) -> Attached<HttpPolicy> {
    let object = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
    authorization_policy(&settings(), &serde_json::from_value(object).unwrap())
}

const BOOKSHOP: &str = r#"
metadata: {namespace: shop, name: viewers}
spec:
  targetRefs: [{kind: Service, group: "", name: reviews}]
  action: ALLOW
  rules:
  - from:
    - source: {principals: ["cluster.local/ns/shop/sa/web"]}
    - source: {requestPrincipals: ["https://id.example/*"], namespaces: ["front-*"]}
    to:
    - operation: {methods: [GET, HEAD], paths: ["/reviews/{*}", "/health*"]}
    when:
    - {key: "request.headers[x-version]", notValues: ["v0"]}
    - {key: "request.auth.claims[realm][roles]", values: ["viewer"]}
"#;

fn request<'a>(http: Http<'a>, identity: &'a identity::Identity) -> Request<'a> {
    let source = [10, 0, 0, 2].into();
    let destination = SocketAddr::from(([10, 96, 0, 1], 80));
    Request { identity: Some(identity), source, remote: source, destination, sni: None, http: Some(http) }
}

#[test]
fn a_policy_of_the_documentation_decides_requests() {
    let compiled = authorization_policy(&settings(), &read::<AuthorizationPolicy>(BOOKSHOP));
    assert_eq!(codes(&compiled.findings), [""; 0]);
    assert_eq!(compiled.targets, [Target::Service { namespace: "shop".into(), name: "reviews".into() }]);

    let (headers, claims) = (HeaderMap::new(), json!({"realm": {"roles": ["viewer"]}}));
    let token = Token { principal: Some("https://id.example/ann"), audiences: &[], presenter: None, claims: &claims };
    let http = Http {
        method: "GET",
        authority: "reviews",
        path: "/reviews/1",
        headers: &headers,
        authentication: Authentication::Token(token),
    };
    let identity = |text: &str| text.parse().unwrap();
    let (web, old) =
        (identity("spiffe://mesh.example/ns/shop/sa/web"), identity("spiffe://old.example/ns/shop/sa/web"));
    let (front, bank) = (identity("spiffe://x/ns/front-1/sa/a"), identity("spiffe://mesh.example/ns/bank/sa/web"));
    let is_allowed = |http, who| decide([&compiled.value].into_iter(), &request(http, who)).decision.is_allowed();
    for (http, who, expected) in [
        (http, &web, true),
        (http, &old, true),
        (http, &front, true),
        (http, &bank, false),
        (Http { path: "/reviews/1/x", ..http }, &web, false),
        (Http { path: "/healthz", ..http }, &web, true),
        (Http { method: "POST", ..http }, &web, false),
        (Http { authentication: Authentication::NoToken, ..http }, &web, false),
    ] {
        assert_eq!(is_allowed(http, who), expected, "{http:?} {who}");
    }
}

#[test]
fn a_value_that_cannot_be_evaluated_is_kept_and_reported() {
    let spec = |rule: Value| json!({"action": "DENY", "rules": [rule]});
    let source = |source: Value| spec(json!({"from": [{"source": source}]}));
    let operation = |operation: Value| spec(json!({"to": [{"operation": operation}]}));
    let when = |key: &str, values: Value| spec(json!({"when": [{"key": key, "values": values}]}));
    for (spec, finding) in [
        (source(json!({"principals": ["*a*"]})), "from[0].source.principals[0] invalid_value"),
        (source(json!({"notPrincipals": [""]})), "from[0].source.notPrincipals[0] invalid_value"),
        (source(json!({"requestPrincipals": ["a*b"]})), "from[0].source.requestPrincipals[0] invalid_value"),
        (source(json!({"serviceAccounts": ["shop/a", "a/b/c"]})), "from[0].source.serviceAccounts[1] invalid_value"),
        (source(json!({"ipBlocks": ["10.0.0.0/33"]})), "from[0].source.ipBlocks[0] invalid_value"),
        (source(json!({"notRemoteIpBlocks": ["x"]})), "from[0].source.notRemoteIpBlocks[0] invalid_value"),
        (source(json!({})), "from[0].source invalid_value"),
        (operation(json!({"ports": ["http"]})), "to[0].operation.ports[0] invalid_value"),
        (operation(json!({"ports": ["0"]})), "to[0].operation.ports[0] invalid_value"),
        (operation(json!({"paths": ["/a/*/b"]})), "to[0].operation.paths[0] invalid_value"),
        (operation(json!({"paths": ["/{**}/{*}"]})), "to[0].operation.paths[0] invalid_value"),
        (operation(json!({"hosts": ["a.*.b"]})), "to[0].operation.hosts[0] invalid_value"),
        (operation(json!({})), "to[0].operation invalid_value"),
        (when("request.time", json!(["9"])), "when[0].key invalid_value"),
        (when("request.headers[a b]", json!(["9"])), "when[0].key invalid_value"),
        (when("request.headers[:path]", json!(["/"])), "when[0].key invalid_value"),
        (when("request.auth.claims[a][]", json!(["9"])), "when[0].key invalid_value"),
        (when("experimental.envoy.filters.x[y]", json!(["9"])), "when[0].key unsupported"),
        (when("source.ip", json!([])), "when[0].key invalid_value"),
        (when("destination.port", json!(["http"])), "when[0].values[0] invalid_value"),
    ] {
        let compiled = authorize(&spec);
        assert_eq!(codes(&compiled.findings), [format!("spec.rules[0].{finding}")], "{spec}");

        let identity = "spiffe://mesh.example/ns/shop/sa/web".parse().unwrap();
        let authentication = Authentication::NoToken;
        let headers = HeaderMap::new();
        let http = Http { method: "GET", authority: "a", path: "/", headers: &headers, authentication };
        let request = request(http, &identity);
        assert!(!decide([&compiled.value].into_iter(), &request).decision.is_allowed(), "DENY {spec}");
        let allow = HttpPolicy { action: policy::http::Action::Allow, ..compiled.value };
        assert!(!decide([&allow].into_iter(), &request).decision.is_allowed(), "ALLOW {spec}");
    }
}

#[test]
fn every_condition_of_the_api_is_compiled() {
    for (key, value) in [
        ("source.ip", "10.0.0.1"),
        ("remote.ip", "10.0.0.0/8"),
        ("source.namespace", "shop"),
        ("source.principal", "td/ns/a/sa/b"),
        ("source.serviceAccount", "web"),
        ("source.trustDomain", "td"),
        ("destination.ip", "10.0.0.1"),
        ("destination.port", "80"),
        ("connection.sni", "*.example.com"),
        ("request.auth.principal", "iss/sub"),
        ("request.auth.audiences", "aud"),
        ("request.auth.presenter", "app"),
        ("request.headers[x-user]", "ann"),
        ("request.auth.claims[iss]", "x"),
        ("request.auth.claims[a][b]", "x"),
    ] {
        let compiled = authorize(&json!({"rules": [{"when": [{"key": key, "values": [value]}]}]}));
        let condition = &compiled.value.rules[0].when[0];
        assert_eq!(condition.key(), key);
        assert!(!condition.is_empty() && compiled.findings.is_empty(), "{key}");
    }
}

#[test]
fn a_policy_is_attached_to_what_it_names() {
    let target = |group: &str, kind: &str, name: &str| json!({"group": group, "kind": kind, "name": name});
    let gateway = "gateway.networking.k8s.io";
    let (namespace, name) = ("shop".to_owned(), "a".to_owned());
    for (spec, targets, findings) in [
        (
            json!({"targetRefs": [target("", "Service", "a"), target("networking.istio.io", "ServiceEntry", "a"), target(gateway, "Gateway", "a")]}),
            vec![
                Target::Service { namespace: namespace.clone(), name: name.clone() },
                Target::ServiceEntry { namespace: namespace.clone(), name: name.clone() },
                Target::Gateway { namespace: namespace.clone(), name: name.clone() },
            ],
            vec![],
        ),
        (
            json!({"targetRef": target("core", "Service", "a"), "targetRefs": [target("", "Service", "a")]}),
            vec![Target::Service { namespace: namespace.clone(), name: name.clone() }],
            vec![],
        ),
        (
            json!({"targetRefs": [target(gateway, "GatewayClass", "istio-waypoint")]}),
            vec![],
            vec!["spec.targetRefs[0] invalid_value"],
        ),
        (json!({"targetRefs": [target("apps", "Deployment", "a")]}), vec![], vec!["spec.targetRefs[0] unsupported"]),
        (json!({"targetRefs": [target("", "Service", "")]}), vec![], vec!["spec.targetRefs[0] invalid_value"]),
        (
            json!({"targetRefs": [{"kind": "Service", "name": "a", "namespace": "other"}]}),
            vec![],
            vec!["spec.targetRefs[0] invalid_value"],
        ),
        (
            json!({"selector": {"matchLabels": {"app": "a"}}, "targetRefs": [target("", "Service", "a")]}),
            vec![Target::Service { namespace: namespace.clone(), name }],
            vec!["spec.selector invalid_value"],
        ),
        (
            json!({"selector": {"matchLabels": {"app": "a"}}}),
            vec![Target::Workloads {
                namespace: Some(namespace.clone()),
                labels: [("app".to_owned(), "a".to_owned())].into_iter().collect(),
            }],
            vec![],
        ),
        (json!({}), vec![Target::Workloads { namespace: Some(namespace), labels: Default::default() }], vec![]),
    ] {
        let compiled = authorize(&spec);
        assert_eq!(
            (compiled.targets, codes(&compiled.findings)),
            (targets, findings.into_iter().map(str::to_owned).collect()),
            "{spec}"
        );
    }
}

#[test]
fn only_the_root_namespace_has_policies_for_a_class_or_the_mesh() {
    let of = |spec: Value| {
        let object = json!({"metadata": {"namespace": "istio-system", "name": "p"}, "spec": spec});
        authorization_policy(&settings(), &serde_json::from_value(object).unwrap())
    };
    let class = |name: &str| json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": name}]});
    assert_eq!(of(class("strake-waypoint")).targets, [Target::GatewayClass { name: "strake-waypoint".into() }]);
    let other = of(class("istio"));
    assert_eq!((other.targets, codes(&other.findings)), (vec![], vec!["spec.targetRefs[0] unsupported".to_owned()]));
    assert_eq!(of(json!({})).targets, [Target::Workloads { namespace: None, labels: Default::default() }]);
}

#[test]
fn actions_and_the_annotation_have_their_meaning() {
    use policy::http::Action;
    let rules = json!([{}]);
    for (spec, action, findings) in [
        (json!({}), Action::Allow, vec![]),
        (json!({"action": "DENY", "rules": rules}), Action::Deny, vec![]),
        (json!({"action": "DENY"}), Action::Deny, vec!["spec.rules ignored"]),
        (json!({"action": "AUDIT", "rules": rules}), Action::Audit, vec![]),
        (
            json!({"action": "CUSTOM", "rules": rules, "provider": {"name": "opa"}}),
            Action::Custom { provider: "opa".into() },
            vec![],
        ),
        (
            json!({"action": "CUSTOM", "rules": rules}),
            Action::Custom { provider: "".into() },
            vec!["spec.provider.name missing"],
        ),
        (json!({"rules": rules, "provider": {"name": "opa"}}), Action::Allow, vec!["spec.provider ignored"]),
    ] {
        let compiled = authorize(&spec);
        assert_eq!(compiled.value.action, action);
        assert_eq!(codes(&compiled.findings), findings, "{spec}");
    }
    for (value, dry_run, found) in [("true", true, 0), ("1", true, 0), ("false", false, 0), ("yes", false, 1)] {
        let annotations = json!({"istio.io/dry-run": value});
        let object = json!({"metadata": {"namespace": "shop", "name": "p", "annotations": annotations}, "spec": {}});
        let compiled = authorization_policy(&settings(), &serde_json::from_value(object).unwrap());
        assert_eq!((compiled.value.dry_run, compiled.findings.len()), (dry_run, found), "{value}");
    }
}
