//! Proxies that come, go, or must not be told anything.

use contract::admin::agent::PodState;

use crate::node::Node;
use crate::{DESTINATION, DESTINATION_V6, Joined, PROXY_CGROUP, captured, enrolled};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_the_pod_is_closed_and_a_new_proxy_opens_it() {
    let Some(Joined { mut node, pod, proxy, .. }) = Joined::new().await else { return };

    node.kill(proxy);
    assert!(node.connect(&pod, DESTINATION_V6).starts_with("error"));
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is served again", |node| {
        (node.connect(&pod, DESTINATION_V6) == captured(DESTINATION_V6)).then_some(())
    });

    node.until("the pod is proved again", |node| enrolled(node, &pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_newer_of_two_proxies_ends_the_older_is_caught_up_with() {
    let Some(Joined { mut node, pod, .. }) = Joined::new().await else { return };

    // The listeners of the second cannot be bound beside those of the first: it is connected and refuses the pod.
    let newer = node.start_proxy(PROXY_CGROUP);
    node.until("two are connected", |node| node.get("/metrics").filter(|text| text.contains("ztunnel_connected 2")));
    node.kill(newer);

    node.until("the older serves the pod", |node| enrolled(node, &pod));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_cgroup_of_an_enrolled_pod_is_told_nothing() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.until("the pod waits for a proxy", |node| {
        node.report(&pod).filter(|report| report.state == PodState::Failed && report.reason.contains("no ztunnel"))
    });

    node.start_proxy(&format!("kubepods/pod{}/sidecar", pod.uid));

    node.until("the refusal is counted", |node| {
        node.get("/metrics")
            .filter(|text| text.contains(r#"strake_agent_proxies_refused_total{reason="shares_cgroup"}"#))
    });
    assert!(!node.is_annotated(&pod));
}
