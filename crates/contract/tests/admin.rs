//! Admin pages against golden files: a change of a page shows as a change of its file.

use contract::admin::agent::{Check, NodeReport, PodReport, PodState};
use contract::admin::control::{Condition, ConditionStatus, ENFORCED, Finding, Policy, Progress, Proxy, Severity};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Compares what is written with the file, and what is read from the file with the page.
fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(page: &T, file: &str) {
    let written = serde_json::to_string_pretty(page).unwrap() + "\n";
    assert_eq!(written, file);
    assert_eq!(serde_json::from_str::<T>(file).unwrap(), *page);
}

#[test]
fn the_agents_pods() {
    let checks = vec![
        Check { name: "listeners".to_owned(), ok: true, detail: "15001, 15006, 15008".to_owned(), unreadable: false },
        Check { name: "rules".to_owned(), unreadable: true, ..Check::default() },
    ];
    let enrolled = PodReport {
        uid: "4f6c".to_owned(),
        namespace: "shop".to_owned(),
        name: "web-1".to_owned(),
        ips: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        selected: true,
        state: PodState::Enrolled,
        reason: "an example of a reason".to_owned(),
        notes: vec!["annotation ambient.istio.io/dns-capture: DNS questions bypass ztunnel".to_owned()],
        hazards: vec!["nftables rule".to_owned()],
        checks,
        netns: "/proc/7/ns/net".to_owned(),
        cookie: Some(7),
        since: "2026-01-02T03:04:05Z".to_owned(),
    };
    let unknown = PodReport { namespace: "shop".to_owned(), name: "db-0".to_owned(), ..PodReport::default() };
    let kernel = vec![Check { name: "btf".to_owned(), ok: true, detail: "present".to_owned(), ..Check::default() }];
    let report =
        NodeReport { node: "node-1".to_owned(), version: "0.1.0".to_owned(), kernel, pods: vec![enrolled, unknown] };

    golden(&report, include_str!("golden/agent-pods.json"));
}

#[test]
fn a_pods_state_is_written_as_it_is_named() {
    use PodState::{Broken, Enrolled, Enrolling, Failed, Leaving, NotSelected, Unknown, Unverified};

    for state in [Unknown, NotSelected, Enrolling, Enrolled, Leaving, Failed, Unverified, Broken] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}

#[test]
fn the_control_planes_findings() {
    let located = Finding {
        object: "AuthorizationPolicy app/web".to_owned(),
        severity: Severity::Warning,
        reason: "service_port".to_owned(),
        field: "spec.rules[0].to[0].operation.ports[0]".to_owned(),
        message: "80 is a port of Service app/web; its pods listen on 8080".to_owned(),
        file: Some("/manifests/web.yaml".to_owned()),
        line: Some(12),
    };
    let derived = Finding {
        object: "Pod app/web-1".to_owned(),
        severity: Severity::Info,
        reason: "ignored".to_owned(),
        field: String::new(),
        message: "its label has no effect".to_owned(),
        file: None,
        line: None,
    };

    golden(&vec![located, derived], include_str!("golden/control-findings.json"));
}

#[test]
fn the_control_planes_policies() {
    let condition = |status, reason: Option<&str>, message: Option<&str>| Condition {
        r#type: ENFORCED.to_owned(),
        status,
        reason: reason.map(str::to_owned),
        message: message.map(str::to_owned),
    };
    let conditions = vec![
        condition(ConditionStatus::True, Some("Enforced"), Some("on 1 workload in the mesh")),
        condition(ConditionStatus::False, Some("NoWorkload"), None),
        condition(ConditionStatus::Unknown, None, None),
    ];
    let policies = vec![Policy { object: "AuthorizationPolicy app/web".to_owned(), conditions }];

    golden(&policies, include_str!("golden/control-policies.json"));
}

#[test]
fn the_control_planes_proxies() {
    let rejected = Progress {
        acked: 3,
        nacked: 1,
        last_acked_nonce: "4".to_owned(),
        error: Some("app/web: invalid address".to_owned()),
    };
    let types = [
        ("type.googleapis.com/istio.security.Authorization".to_owned(), rejected),
        ("type.googleapis.com/istio.workload.Address".to_owned(), Progress::default()),
    ];
    let proxy = Proxy {
        connection: 2,
        node: "node-1".to_owned(),
        identity: "spiffe://cluster.local/ns/istio-system/sa/ztunnel".to_owned(),
        node_id: "ztunnel~10.0.0.7~ztunnel-x.istio-system~istio-system.svc.cluster.local".to_owned(),
        types: types.into(),
    };

    golden(&vec![proxy], include_str!("golden/control-proxies.json"));
}
