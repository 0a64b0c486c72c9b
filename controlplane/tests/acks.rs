//! A policy counts as enforced when the proxies of its workloads have acknowledged it, and not before. The proxies are
//! played by the test: they answer, refuse, are silent, or go.

mod support;

use std::collections::HashMap;

use serde_json::Value;
use support::Running;
use support::manifests::{NAMESPACE, PODS, POLICY, STRICT};

const WEB: &str = "AuthorizationPolicy app/web";
const PEER: &str = "PeerAuthentication app/strict";

/// Resources by name.
const POLICY_NAME: &str = "app/web";
const PODS_NAMES: [&str; 2] = ["Kubernetes//Pod/app/web", "Kubernetes//Pod/app/db"];
const EVERYTHING: [&str; 3] = [POLICY_NAME, PODS_NAMES[0], PODS_NAMES[1]];

/// Starts with a policy that is for so many workloads; both pods are in the mesh.
async fn start((file, text): (&str, &str), policy: &str, workloads: usize) -> Running {
    let running = Running::start(&[("ns.yaml", NAMESPACE), ("pods.yaml", PODS), (file, text)]).await;
    running.enrol("web").await;
    running.enrol("db").await;
    let nothing = format!("acknowledged for 0 of {workloads} workloads in the mesh; no connection to ");
    let is_placed = |found: &Value| found["message"].as_str().is_some_and(|message| message.starts_with(&nothing));
    running.enforced_when(policy, is_placed).await;
    running
}

#[tokio::test]
async fn a_policy_is_enforced_once_the_proxy_has_acknowledged_it_and_while_it_is_connected() {
    let running = start(("policy.yaml", POLICY), WEB, 1).await;
    let message = running.enforced(WEB, "Unknown", "ProxyGone").await;
    assert_eq!(message, "acknowledged for 0 of 1 workloads in the mesh; no connection to the proxy of node n1");

    let mut n1 = running.fake("token of n1").await;
    n1.ask(&HashMap::new()).await;
    let mut told = n1.hear(&EVERYTHING).await;
    let message = running.enforced(WEB, "Unknown", "Pending").await;
    assert_eq!(message, "acknowledged for 0 of 1 workloads in the mesh; on its way to the proxy of node n1");
    let policies = told.remove(0);
    assert_eq!(policies.type_url, proto::AUTHORIZATION_TYPE_URL);
    n1.ack(&[policies]).await;
    n1.ack(&told).await;
    assert_eq!(running.enforced(WEB, "True", "Enforced").await, "enforced on 1 of 1 selected workload");

    running.write("policy.yaml", &POLICY.replace("[app]", "[app, other]"));
    let changed = n1.hear(&[POLICY_NAME]).await;
    running.enforced(WEB, "Unknown", "Pending").await;
    n1.ack(&changed).await;
    running.enforced(WEB, "True", "Enforced").await;
    let held = n1.heard().clone();
    drop(n1);
    running.enforced(WEB, "Unknown", "ProxyGone").await;
    const STATUS: &str = "state/status/control/AuthorizationPolicy/app/web.yaml";
    let status = running.file_when(STATUS, |text| text.contains("ProxyGone")).await;
    assert!(status.contains("Unknown") && status.contains("node n1"), "{status}");

    let again = running.fake("token of n1").await;
    again.ask(&held).await;
    running.enforced(WEB, "True", "Enforced").await;
}

#[tokio::test]
async fn a_proxy_that_refuses_a_policy_is_quoted() {
    let running = start(("policy.yaml", POLICY), WEB, 1).await;
    let mut n1 = running.fake("token of n1").await;
    n1.ask(&HashMap::new()).await;
    let first = n1.hear(&EVERYTHING).await;
    n1.ack(&first).await;
    running.enforced(WEB, "True", "Enforced").await;

    running.write("policy.yaml", &POLICY.replace("[app]", "[app, other]"));
    let changed = n1.hear(&[POLICY_NAME]).await;
    n1.nack(&changed, "app/web: cannot be read").await;
    let message = running.enforced(WEB, "False", "Refused").await;
    assert!(message.ends_with("; rejected by node n1: app/web: cannot be read"), "{message}");

    running.write("policy.yaml", POLICY);
    let back = n1.hear(&[POLICY_NAME]).await;
    n1.ack(&back).await;
    running.enforced(WEB, "True", "Enforced").await;
}

#[tokio::test]
async fn one_proxy_of_two_is_not_enough() {
    let running = start(("strict.yaml", STRICT), PEER, 2).await;
    let mut proxies = [running.fake("token of n1").await, running.fake("token of n2").await];
    let mut told = Vec::new();
    for proxy in &mut proxies {
        proxy.ask(&HashMap::new()).await;
        told.push(proxy.hear(&PODS_NAMES).await);
    }

    proxies[0].ack(&told[0]).await;
    let half = "acknowledged for 1 of 2 workloads in the mesh; on its way to the proxy of node n2";
    running.enforced_when(PEER, |found| found["message"] == half && found["status"] == "Unknown").await;
    proxies[1].ack(&told[1]).await;

    assert_eq!(running.enforced(PEER, "True", "Enforced").await, "STRICT enforced on 2 of 2 selected workloads");
}
