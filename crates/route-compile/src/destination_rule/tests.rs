//! Precedence of rules and of the parts of their policies.

use super::*;
use crate::testing::{codes, world};

const HOST: &str = "reviews.shop.svc.cluster.local";

pub(super) fn policies_of(yaml: &str, waypoint: &str) -> CompiledTraffic {
    let world = world(yaml);
    traffic(&world, waypoint, HOST, &world.services[HOST])
}

/// Algorithm for a port without subset.
fn algorithm(compiled: &CompiledTraffic, port: u16) -> &Algorithm {
    &compiled.traffic.policy(port, None).unwrap().load_balancer.algorithm
}

/// A rule `name` in `namespace` that is told by its load balancer.
fn rule(namespace: &str, name: &str, host: &str, simple: &str, more: &str) -> String {
    format!(
        "---\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{host: \"{host}\", trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}{more}}}\n"
    )
}

#[test]
fn namespaces_are_asked_in_order_and_the_first_with_a_rule_decides() {
    let own = rule("gateways", "own", "*.local", "RANDOM", "");
    let service = rule("shop", "service", "reviews", "ROUND_ROBIN", "");
    let root = rule("istio-system", "root", HOST, "LEAST_REQUEST", "");
    let other = rule("other", "other", HOST, "PASSTHROUGH", "");
    for (rules, waypoint, expected) in [
        (vec![&own, &service, &root], "gateways", Algorithm::Random),
        (vec![&service, &root], "gateways", Algorithm::RoundRobin),
        (vec![&root, &other], "gateways", Algorithm::LeastRequest),
        (vec![&other], "gateways", Algorithm::LeastRequest),
        (vec![&service, &root], "istio-system", Algorithm::RoundRobin),
    ] {
        let yaml: String = rules.into_iter().cloned().collect();
        assert_eq!(*algorithm(&policies_of(&yaml, waypoint), 9080), expected, "{waypoint} {yaml}");
    }
    let hiding = policies_of(&format!("{own}{service}"), "gateways");
    assert_eq!(codes(&hiding.findings), ["shop/service spec.host shadowed"]);
}

#[test]
fn a_rule_of_the_root_namespace_for_itself_alone_comes_first() {
    let own = rule("istio-system", "own", HOST, "RANDOM", ", exportTo: [\".\"]");
    let service = rule("shop", "service", "reviews", "ROUND_ROBIN", "");
    let both = format!("{own}{service}");
    assert_eq!(*algorithm(&policies_of(&both, "istio-system"), 9080), Algorithm::Random);
    assert_eq!(*algorithm(&policies_of(&both, "shop"), 9080), Algorithm::RoundRobin);
}

#[test]
fn a_rule_that_is_not_exported_to_the_waypoint_does_not_count() {
    let yaml = rule("shop", "service", "reviews", "RANDOM", ", exportTo: [\".\"]");
    assert_eq!(*algorithm(&policies_of(&yaml, "gateways"), 9080), Algorithm::LeastRequest);
    assert_eq!(*algorithm(&policies_of(&yaml, "shop"), 9080), Algorithm::Random);
}

#[test]
fn the_most_special_host_wins() {
    let yaml = ["*", "*.local", "*.shop.svc.cluster.local"].map(|host| {
        let name = format!("r{}", host.len());
        rule("shop", &name, host, if host.len() > 10 { "RANDOM" } else { "PASSTHROUGH" }, "")
    });
    let found = policies_of(&yaml.concat(), "shop");
    assert_eq!(*algorithm(&found, 9080), Algorithm::Random);
    assert_eq!(codes(&found.findings), ["shop/r1 spec.host shadowed", "shop/r7 spec.host shadowed"]);
}

#[test]
fn rules_for_the_same_host_are_merged_by_age() {
    let yaml = "
kind: DestinationRule
metadata: {name: a-younger, namespace: shop, creationTimestamp: '2026-02-01T00:00:00Z'}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
  subsets: [{name: v1, labels: {version: other}}, {name: v3, labels: {version: v3}}]
---
kind: DestinationRule
metadata: {name: b-older, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
";
    let found = policies_of(yaml, "shop");

    let subsets: Vec<_> =
        found.traffic.subsets.iter().map(|(name, of)| (name.as_str(), of.labels["version"].as_str())).collect();
    assert_eq!(subsets, [("v1", "v1"), ("v2", "v2"), ("v3", "v3")]);
    assert_eq!(*algorithm(&found, 9080), Algorithm::RoundRobin);
    assert_eq!(found.traffic.origin.as_deref(), Some("DestinationRule shop/b-older spec.trafficPolicy"));
    assert_eq!(
        codes(&found.findings),
        ["shop/a-younger spec.subsets[0] shadowed", "shop/a-younger spec.trafficPolicy shadowed"]
    );
}

#[test]
fn settings_for_a_port_replace_and_those_of_a_subset_override() {
    let yaml = "
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {http: {http2MaxRequests: 7}}
    outlierDetection: {consecutive5xxErrors: 3}
    retryBudget: {percent: 20}
    portLevelSettings:
    - {port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}}
  - name: v2
    labels: {version: v2}
    trafficPolicy:
      portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: LEAST_REQUEST}}]
  - {name: v3, labels: {version: v3}}
";
    let found = policies_of(yaml, "shop");
    let parts = |port, subset| {
        let policy = found.traffic.policy(port, subset).unwrap();
        let errors = policy.outlier_detection.as_ref().and_then(|of| of.consecutive_5xx);
        let requests = policy.connection_pool.http.max_requests;
        (policy.load_balancer.algorithm.clone(), requests, errors, policy.retry_budget.is_some())
    };

    use Algorithm::{LeastRequest, Random, RoundRobin};
    assert_eq!(parts(9080, None), (Random, Some(7), Some(3), true));
    assert_eq!(parts(80, None), (RoundRobin, None, None, true), "what the port does not say is the default");
    assert_eq!(parts(9080, Some("v1")), (Random, Some(7), Some(1), true));
    assert_eq!(parts(80, Some("v1")), (RoundRobin, None, Some(1), true));
    assert_eq!(parts(9080, Some("v2")), (LeastRequest, None, None, true));
    assert_eq!(parts(80, Some("v2")), (RoundRobin, None, None, true));
    assert_eq!(parts(9080, Some("v3")), parts(9080, None));
    assert_eq!(found.traffic.policy(9080, Some("unknown")), None);
}

#[test]
fn settings_without_effect_are_reported() {
    let yaml = "
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {zoneAwareLbSetting: {enabled: true}}
    connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}
    outlierDetection: {consecutiveErrors: 5}
    tls: {mode: ISTIO_MUTUAL}
    portLevelSettings: [{tls: {mode: DISABLE}}]
---
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: reviews, workloadSelector: {matchLabels: {app: client}}}
";
    assert_eq!(
        codes(&policies_of(yaml, "shop").findings),
        [
            "shop/a spec.trafficPolicy.connectionPool.http.h2UpgradePolicy invalid_value",
            "shop/a spec.trafficPolicy.loadBalancer.zoneAwareLbSetting unsupported",
            "shop/a spec.trafficPolicy.outlierDetection.consecutiveErrors ignored",
            "shop/a spec.trafficPolicy.portLevelSettings[0].port invalid_value",
            "shop/a spec.trafficPolicy.tls.mode ignored",
            "shop/b spec.workloadSelector unsupported",
        ]
    );
}
