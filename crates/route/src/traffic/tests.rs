//! Defaults, lookup, and the form in which policies travel.

use std::time::Duration;

use super::*;

fn with_requests(max: u32) -> Arc<TrafficPolicy> {
    let mut policy = TrafficPolicy::default();
    policy.connection_pool.http.max_requests = Some(max);
    Arc::new(policy)
}

#[test]
fn a_port_has_its_own_policy_or_the_default_and_an_unknown_subset_has_none() {
    let policies = PortPolicies { default: with_requests(1), ports: [(80, with_requests(2))].into() };
    let of_subset = PortPolicies { default: with_requests(3), ports: BTreeMap::new() };
    let subset = Subset { policies: of_subset, ..Subset::default() };
    let traffic = ServiceTraffic { policies, subsets: [("v1".into(), subset)].into(), origin: None };
    let max = |port, subset| traffic.policy(port, subset).and_then(|of| of.connection_pool.http.max_requests);

    assert_eq!(max(80, None), Some(2));
    assert_eq!(max(81, None), Some(1));
    assert_eq!(max(80, Some("v1")), Some(3));
    assert!(traffic.policy(80, Some("v2")).is_none());
}

#[test]
fn a_subset_selects_workloads_that_have_all_its_labels() {
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let subset = Subset { labels: labels(&[("version", "v1")]), ..Subset::default() };
    assert!(subset.selects(&labels(&[("app", "reviews"), ("version", "v1")])));
    assert!(!subset.selects(&labels(&[("version", "v2")])));
    assert!(!subset.selects(&Labels::new()));
    assert!(Subset::default().selects(&Labels::new()));
}

#[test]
fn a_policy_is_read_as_it_was_written_and_unknown_fields_are_refused() {
    let cookie = HashCookie {
        name: "user".into(),
        path: "/".into(),
        ttl: Some(Duration::ZERO),
        attributes: vec![("SameSite".into(), "Lax".into())],
    };
    let to = vec![(LocalityPattern::new("a/*").unwrap(), 80), (LocalityPattern::new("*").unwrap(), 20)];
    let from = LocalityPattern::new("a/b/c").unwrap();
    for (key, locality) in [
        (HashKey::Cookie(cookie), LocalityBalancing::Distribute(vec![Distribution { from, to }])),
        (
            HashKey::Header(http::HeaderName::from_static("x-user")),
            LocalityBalancing::Failover {
                labels: vec!["topology.istio.io/network".into()],
                regions: vec![RegionFailover { from: "a".into(), to: "b".into() }],
            },
        ),
        (HashKey::SourceAddress, LocalityBalancing::Disabled),
        (HashKey::QueryParameter("q".into()), LocalityBalancing::Service),
    ] {
        let policy = TrafficPolicy {
            load_balancer: LoadBalancer {
                algorithm: Algorithm::ConsistentHash { key, table: HashTable::Maglev { size: 65_537 } },
                locality,
                warm_up: Some(WarmUp::new(Duration::from_secs(30))),
            },
            connection_pool: ConnectionPool::default(),
            outlier_detection: Some(OutlierDetection::default()),
            tls: Some(ClientTls {
                certificate: Some(ClientCertificate::Secret("client".into())),
                trust: Trust::File("/ca.pem".into()),
                ..ClientTls::default()
            }),
            proxy_protocol: Some(ProxyProtocol::V2),
            retry_budget: Some(RetryBudget::default()),
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<TrafficPolicy>(&text).unwrap(), policy, "{text}");
    }
    assert_eq!(serde_json::from_str::<TrafficPolicy>("{}").unwrap(), TrafficPolicy::default());
    let refused = serde_json::from_str::<TrafficPolicy>(r#"{"loadBalancer": {"speed": 1}}"#).unwrap_err();
    assert!(refused.to_string().contains("speed"), "{refused}");
    let refused = serde_json::from_str::<HashKey>(r#"{"header": "a b"}"#).unwrap_err();
    assert!(refused.to_string().contains("invalid header name"), "{refused}");
}

#[test]
fn locality_patterns_match_from_the_left() {
    for (text, region, zone, subzone, expected) in [
        ("*", "a", "b", "c", true),
        ("a", "a", "b", "c", true),
        ("a/*", "a", "", "", true),
        ("a/b", "a", "b", "c", true),
        ("a/b/*", "a", "c", "", false),
        ("a/b/c", "a", "b", "c", true),
        ("a/b/c", "a", "b", "", false),
        ("b/*", "a", "b", "c", false),
    ] {
        let pattern = LocalityPattern::new(text).unwrap();
        assert_eq!(pattern.matches(region, zone, subzone), expected, "{text}");
    }
    for invalid in ["", "a//c", "*/b", "a/*/c", "a/b/c/d", "a*", "/"] {
        assert_eq!(LocalityPattern::new(invalid), None, "{invalid}");
    }
}

#[test]
fn ejections_grow_to_five_minutes_or_the_base() {
    let seconds = |base, number| {
        let base_ejection_time = Duration::from_secs(base);
        OutlierDetection { base_ejection_time, ..OutlierDetection::default() }.ejection_time(number).as_secs()
    };
    assert_eq!([1, 2, 10, 11, u32::MAX].map(|number| seconds(30, number)), [30, 60, 300, 300, 300]);
    assert_eq!([1, 2].map(|number| seconds(900, number)), [900, 900]);
}

#[test]
fn the_endpoint_to_be_ejected_counts_itself() {
    let allows = |percent, ejected, total| {
        OutlierDetection { max_ejection_percent: percent, ..OutlierDetection::default() }.allows(ejected, total)
    };
    // Measured with Envoy 1.40.
    assert!(!allows(10, 1, 3));
    assert!(!allows(33, 1, 3));
    assert!(allows(34, 1, 3));
    assert!(allows(100, 1, 1));
    assert!(!allows(10, 1, 9));
    assert!(allows(10, 1, 10));
    assert!(!allows(10, 2, 19));
}

#[test]
fn numbers_are_read_to_a_millionth() {
    assert_eq!(Millionths::new(1.5), Some(Millionths(1_500_000)));
    assert_eq!(Millionths::new(0.1), Some(Millionths(100_000)));
    assert_eq!([-0.1, 5000.0, f64::NAN, f64::INFINITY].map(Millionths::new), [None; 4]);
}
