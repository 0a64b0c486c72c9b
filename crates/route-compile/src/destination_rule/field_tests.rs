//! Every field of a policy.

use std::time::Duration;

use route::traffic::{
    ClientCertificate, ClientTls, ConnectionPool, Distribution, HashCookie, HashKey, HashTable, Http2KeepAlive,
    HttpPool, HttpVersion, LocalityBalancing, LocalityPattern, Millionths, OutlierDetection, RegionFailover,
    TcpKeepalive, TcpPool, Trust, WarmUp,
};

use super::tests::policies_of;
use super::*;
use crate::testing::codes;

/// The policy of port 9080 under a `trafficPolicy`, and the findings with their fields below it.
fn compiled(policy: &str) -> (TrafficPolicy, Vec<String>) {
    let yaml = format!(
        "kind: DestinationRule\nmetadata: {{name: a, namespace: shop}}\nspec: {{host: reviews, trafficPolicy: {policy}}}\n"
    );
    let compiled = policies_of(&yaml, "shop");
    let codes = codes(&compiled.findings).into_iter();
    let codes = codes.map(|code| code.replace("shop/a spec.trafficPolicy.", "")).collect();
    (compiled.traffic.policy(9080, None).unwrap().as_ref().clone(), codes)
}

/// The policy where nothing is to be reported.
fn clean(policy: &str) -> TrafficPolicy {
    let (compiled, codes) = compiled(policy);
    assert_eq!(codes, [""; 0], "{policy}");
    compiled
}

#[test]
fn every_limit_of_a_pool_is_compiled() {
    let pool = clean(
        "{connectionPool: {
            tcp: {maxConnections: 1, connectTimeout: 30ms, maxConnectionDuration: 2h, idleTimeout: 3m,
                  tcpKeepalive: {probes: 4, time: 5s, interval: 6.5s}},
            http: {http1MaxPendingRequests: 7, http2MaxRequests: 8, maxRequestsPerConnection: 9, maxRetries: 10,
                   idleTimeout: 11s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 12,
                   http2KeepAlive: {interval: 13s, timeout: 14s}}}}",
    )
    .connection_pool;
    let seconds = Duration::from_secs;
    let keepalive = TcpKeepalive { probes: Some(4), time: Some(seconds(5)), interval: Some(seconds(6)) };
    let tcp = TcpPool {
        max_connections: Some(1),
        connect_timeout: Duration::from_millis(30),
        keepalive: Some(keepalive),
        max_connection_duration: Some(seconds(7200)),
        idle_timeout: Some(seconds(180)),
    };
    let http = HttpPool {
        max_pending_requests: Some(7),
        max_requests: Some(8),
        max_requests_per_connection: Some(9),
        max_retries: Some(10),
        idle_timeout: Some(seconds(11)),
        version: HttpVersion::Http2,
        max_concurrent_streams: Some(12),
        http2_keep_alive: Some(Http2KeepAlive { interval: seconds(13), timeout: seconds(14) }),
    };
    assert_eq!(pool, ConnectionPool { tcp, http });

    let zero = clean(
        "{connectionPool: {tcp: {maxConnections: 0, idleTimeout: 0s},
          http: {http1MaxPendingRequests: 0, http2MaxRequests: 0, maxRetries: 0, idleTimeout: 0s, useClientProtocol: true}}}",
    );
    assert_eq!(zero.connection_pool.tcp, TcpPool { idle_timeout: None, ..TcpPool::default() });
    let http = HttpPool { idle_timeout: None, version: HttpVersion::Client, ..HttpPool::default() };
    assert_eq!(zero.connection_pool.http, http);
}

#[test]
fn invalid_limits_leave_the_default_and_are_reported() {
    let (policy, codes) = compiled(
        "{connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s, tcpKeepalive: {time: 5ms}},
          http: {maxRetries: -5, idleTimeout: soon, http2KeepAlive: {interval: 1s}}}}",
    );
    assert_eq!(policy.connection_pool.http, HttpPool::default());
    assert_eq!(policy.connection_pool.tcp.connect_timeout, Duration::from_secs(10));
    let fields = [
        "http.http2KeepAlive",
        "http.idleTimeout",
        "http.maxRetries",
        "tcp.connectTimeout",
        "tcp.maxConnections",
        "tcp.tcpKeepalive.time",
    ];
    assert_eq!(codes, fields.map(|field| format!("connectionPool.{field} invalid_value")));
}

#[test]
fn every_simple_balancer_and_the_warm_up_are_compiled() {
    for (simple, expected) in [
        ("UNSPECIFIED", Algorithm::LeastRequest),
        ("LEAST_CONN", Algorithm::LeastRequest),
        ("LEAST_REQUEST", Algorithm::LeastRequest),
        ("ROUND_ROBIN", Algorithm::RoundRobin),
        ("RANDOM", Algorithm::Random),
    ] {
        let policy = clean(&format!("{{loadBalancer: {{simple: {simple}}}}}"));
        assert_eq!(policy.load_balancer.algorithm, expected);
    }
    let (policy, codes) = compiled("{loadBalancer: {simple: PASSTHROUGH}}");
    assert_eq!(policy.load_balancer.algorithm, Algorithm::Passthrough);
    assert_eq!(codes, ["loadBalancer.simple ignored"]);

    let warm_up = |text: &str| clean(&format!("{{loadBalancer: {{{text}}}}}")).load_balancer.warm_up;
    let thirty = WarmUp::new(Duration::from_secs(30));
    assert_eq!(warm_up("warmupDurationSecs: 30s"), Some(thirty));
    assert_eq!(warm_up("warmup: {duration: 30s}"), Some(thirty));
    let curve = WarmUp { minimum: Millionths(200_000), aggression: Millionths(1_500_000), ..thirty };
    assert_eq!(warm_up("warmup: {duration: 30s, minimumPercent: 20, aggression: 1.5}"), Some(curve));
    let (policy, codes) = compiled("{loadBalancer: {warmup: {duration: 30s, minimumPercent: 120, aggression: 0.5}}}");
    assert_eq!(policy.load_balancer.warm_up, Some(thirty));
    assert_eq!(
        codes,
        ["loadBalancer.warmup.aggression invalid_value", "loadBalancer.warmup.minimumPercent invalid_value"]
    );
    let (policy, codes) = compiled("{loadBalancer: {simple: RANDOM, warmup: {duration: 30s}}}");
    assert_eq!((policy.load_balancer.warm_up, codes), (None, vec!["loadBalancer.warmup ignored".to_owned()]));
}

#[test]
fn every_key_and_table_of_a_hash_is_compiled() {
    let ring = HashTable::Ring { minimum_size: 1024 };
    let cookie = HashCookie { name: "user".into(), ..HashCookie::default() };
    let full = HashCookie {
        path: "/app".into(),
        ttl: Some(Duration::ZERO),
        attributes: vec![("SameSite".into(), "Lax".into()), ("Secure".into(), String::new())],
        ..cookie.clone()
    };
    for (text, key, table) in [
        ("httpHeaderName: X-User", HashKey::Header(http::HeaderName::from_static("x-user")), ring),
        ("httpCookie: {name: user}", HashKey::Cookie(cookie), ring),
        (
            "httpCookie: {name: user, path: /app, ttl: 0s, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}",
            HashKey::Cookie(full),
            ring,
        ),
        ("useSourceIp: true", HashKey::SourceAddress, ring),
        ("httpQueryParameterName: q, useSourceIp: false", HashKey::QueryParameter("q".into()), ring),
        ("useSourceIp: true, minimumRingSize: 7", HashKey::SourceAddress, HashTable::Ring { minimum_size: 7 }),
        (
            "useSourceIp: true, ringHash: {minimumRingSize: 9}, minimumRingSize: 7",
            HashKey::SourceAddress,
            HashTable::Ring { minimum_size: 9 },
        ),
        ("useSourceIp: true, maglev: {}", HashKey::SourceAddress, HashTable::Maglev { size: 65_537 }),
        ("useSourceIp: true, maglev: {tableSize: 101}", HashKey::SourceAddress, HashTable::Maglev { size: 101 }),
    ] {
        let policy = clean(&format!("{{loadBalancer: {{consistentHash: {{{text}}}}}}}"));
        assert_eq!(policy.load_balancer.algorithm, Algorithm::ConsistentHash { key, table }, "{text}");
    }
    for (text, field) in [
        ("httpHeaderName: 'a b'", ".httpHeaderName"),
        ("httpHeaderName: a, useSourceIp: true", ""),
        ("useSourceIp: false", ""),
        ("httpCookie: {name: ''}", ".httpCookie.name"),
    ] {
        let (policy, codes) = compiled(&format!("{{loadBalancer: {{consistentHash: {{{text}}}}}}}"));
        assert_eq!(policy.load_balancer.algorithm, Algorithm::LeastRequest, "{text}");
        assert_eq!(codes, [format!("loadBalancer.consistentHash{field} invalid_value")]);
    }
    for (text, field) in [
        ("maglev: {tableSize: 100}", "maglev.tableSize"),
        ("maglev: {tableSize: 5000081}", "maglev.tableSize"),
        ("ringHash: {minimumRingSize: 8388609}", "ringHash.minimumRingSize"),
        ("httpCookie: {name: a, path: 'b;c'}, useSourceIp: false", "httpCookie.path"),
        (
            "httpCookie: {name: a, attributes: [{name: b, value: 'c;d'}]}, useSourceIp: false",
            "httpCookie.attributes[0]",
        ),
    ] {
        let source = if text.contains("useSourceIp") { "" } else { ", useSourceIp: true" };
        let (_, codes) = compiled(&format!("{{loadBalancer: {{consistentHash: {{{text}{source}}}}}}}"));
        assert_eq!(codes, [format!("loadBalancer.consistentHash.{field} invalid_value")]);
    }
}

#[test]
fn localities_are_compiled_and_failover_needs_outlier_detection() {
    let pattern = |text| LocalityPattern::new(text).unwrap();
    let locality =
        |text: &str| clean(&format!("{{loadBalancer: {{localityLbSetting: {{{text}}}}}, outlierDetection: {{}}}}"));
    let locality = |text: &str| locality(text).load_balancer.locality;
    assert_eq!(clean("{loadBalancer: {simple: RANDOM}}").load_balancer.locality, LocalityBalancing::Service);
    assert_eq!(locality("enabled: false"), LocalityBalancing::Disabled);
    let failover = |labels: &[&str], regions: &[(&str, &str)]| LocalityBalancing::Failover {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        regions: regions.iter().map(|(from, to)| RegionFailover { from: (*from).into(), to: (*to).into() }).collect(),
    };
    assert_eq!(locality("enabled: true"), failover(&[], &[]));
    assert_eq!(locality("failover: [{from: a, to: b}]"), failover(&[], &[("a", "b")]));
    assert_eq!(
        locality("failoverPriority: [topology.istio.io/network, 'version=v1']"),
        failover(&["topology.istio.io/network", "version=v1"], &[])
    );
    let to = vec![(pattern("a/b/*"), 70), (pattern("a/*"), 10), (pattern("b/*"), 20)];
    let distribution = Distribution { from: pattern("a/*"), to };
    assert_eq!(
        locality("distribute: [{from: a/*, to: {a/*: 10, a/b/*: 70, b/*: 20}}]"),
        LocalityBalancing::Distribute(vec![distribution])
    );

    let (policy, codes) = compiled("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}");
    assert_eq!(policy.load_balancer.locality, LocalityBalancing::Disabled);
    assert_eq!(codes, ["loadBalancer.localityLbSetting ignored"]);
    let (_, codes) = compiled(
        "{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}], failoverPriority: ['', ok],
          distribute: [{from: a/*/c, to: {a: 100}}, {from: a, to: {b: 0}}, {from: b, to: {b: 1, c**: 3}}]}}}",
    );
    assert_eq!(
        codes,
        [
            "loadBalancer.localityLbSetting.distribute[0].from invalid_value",
            "loadBalancer.localityLbSetting.distribute[1].to invalid_value",
            "loadBalancer.localityLbSetting.distribute[1].to invalid_value",
            "loadBalancer.localityLbSetting.distribute[2].to invalid_value",
            "loadBalancer.localityLbSetting.distribute[2].to invalid_value",
            "loadBalancer.localityLbSetting.failover ignored",
            "loadBalancer.localityLbSetting.failoverPriority ignored",
        ]
    );
    let (policy, codes) = compiled(
        "{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}], failoverPriority: ['', ok]}}, outlierDetection: {}}",
    );
    assert_eq!(policy.load_balancer.locality, failover(&["ok"], &[]));
    assert_eq!(
        codes,
        [
            "loadBalancer.localityLbSetting.failoverPriority[0] invalid_value",
            "loadBalancer.localityLbSetting.failover[0] invalid_value",
        ]
    );
}

#[test]
fn every_field_of_outlier_detection_is_compiled() {
    assert_eq!(clean("{outlierDetection: {}}").outlier_detection, Some(OutlierDetection::default()));
    let policy = clean(
        "{outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 2, splitExternalLocalOriginErrors: true,
          consecutiveLocalOriginFailures: 3, outlierDetectionHttpErrorCodes: [429, 500], interval: 4s, baseEjectionTime: 5m,
          maxEjectionPercent: 60, minHealthPercent: 70}}",
    );
    let expected = OutlierDetection {
        consecutive_5xx: None,
        consecutive_gateway_errors: Some(2),
        split_local_origin: true,
        consecutive_local_origin_failures: Some(3),
        error_codes: vec![429, 500],
        interval: Duration::from_secs(4),
        base_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 60,
        min_health_percent: 70,
    };
    assert_eq!(policy.outlier_detection, Some(expected));
    let (policy, codes) = compiled(
        "{outlierDetection: {consecutiveLocalOriginFailures: 3, outlierDetectionHttpErrorCodes: [1000], interval: x,
          maxEjectionPercent: 101, minHealthPercent: -1}}",
    );
    let local = OutlierDetection { consecutive_local_origin_failures: Some(3), ..OutlierDetection::default() };
    assert_eq!(policy.outlier_detection, Some(local));
    assert_eq!(
        codes,
        [
            "outlierDetection.consecutiveLocalOriginFailures ignored",
            "outlierDetection.interval invalid_value",
            "outlierDetection.maxEjectionPercent invalid_value",
            "outlierDetection.minHealthPercent invalid_value",
            "outlierDetection.outlierDetectionHttpErrorCodes invalid_value",
        ]
    );
}

#[test]
fn tls_to_applications_is_compiled() {
    let tls = |text: &str| clean(&format!("{{tls: {{{text}}}}}")).tls;
    assert_eq!(tls("mode: SIMPLE"), Some(ClientTls::default()));
    let files = ClientCertificate::Files { certificate: "/c".into(), key: "/k".into() };
    let full = ClientTls {
        certificate: Some(files),
        trust: Trust::File("/ca".into()),
        crl: Some("/crl".into()),
        subject_alt_names: vec!["a.example".into()],
        sni: Some("b.example".into()),
    };
    assert_eq!(
        tls("mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl, \
             subjectAltNames: [a.example], sni: b.example"),
        Some(full)
    );
    let secret = || "s".to_owned();
    assert_eq!(
        tls("mode: MUTUAL, credentialName: s"),
        Some(ClientTls {
            certificate: Some(ClientCertificate::Secret(secret())),
            trust: Trust::Secret(secret()),
            ..ClientTls::default()
        })
    );
    let unverified = ClientTls { trust: Trust::Unverified, ..ClientTls::default() };
    assert_eq!(tls("mode: SIMPLE, insecureSkipVerify: true"), Some(unverified));
    for (text, code) in [
        ("mode: MUTUAL", "tls.mode invalid_value"),
        ("mode: SIMPLE, privateKey: /k", "tls.privateKey ignored"),
        ("mode: SIMPLE, credentialName: s, caCertificates: /ca", "tls.caCertificates ignored"),
    ] {
        assert_eq!(compiled(&format!("{{tls: {{{text}}}}}")).1, [code]);
    }
}

#[test]
fn the_proxy_protocol_and_the_retry_budget_are_compiled_and_a_tunnel_is_reported() {
    assert_eq!(clean("{proxyProtocol: {version: V2}}").proxy_protocol, Some(ProxyProtocol::V2));
    assert_eq!(clean("{proxyProtocol: {}}").proxy_protocol, Some(ProxyProtocol::V1));
    assert_eq!(clean("{retryBudget: {}}").retry_budget, Some(RetryBudget::default()));
    let budget = RetryBudget { share: Millionths(55_000), min_concurrency: 0 };
    assert_eq!(clean("{retryBudget: {percent: 5.5, minRetryConcurrency: 0}}").retry_budget, Some(budget));
    let (policy, codes) = compiled(
        "{retryBudget: {percent: 101, budgetInterval: 10s}, tunnel: {protocol: CONNECT, targetHost: a, targetPort: 1}}",
    );
    assert_eq!(policy.retry_budget, Some(RetryBudget::default()));
    assert_eq!(
        codes,
        ["retryBudget.budgetInterval unsupported", "retryBudget.percent invalid_value", "tunnel unsupported"]
    );
}

#[test]
fn an_entry_for_a_port_that_is_not_there_or_has_one_already_is_reported() {
    let (_, codes) =
        compiled("{portLevelSettings: [{port: {number: 80}}, {port: {number: 80}}, {port: {number: 81}}]}");
    assert_eq!(codes, ["portLevelSettings[1].port.number shadowed", "portLevelSettings[2].port.number missing"]);
}
