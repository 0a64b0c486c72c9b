//! A pod's way into the mesh and out of it.

use std::time::{Duration, Instant};

use contract::admin::agent::PodState;
use strake_agent::rules;

use crate::node::Node;
use crate::{DESTINATION, DESTINATION_V6, Joined, PROXY_CGROUP, captured, enrolled, outside};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pod_joins_and_leaves_with_the_label_of_its_namespace() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(false);
    let pod = node.start_pod("web").await;
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the pod is known", |node| outside(node, &pod));
    assert!(node.report(&pod).unwrap().reason.contains("label"));
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
    node.until("the proxy is connected", |node| {
        node.get("/metrics").filter(|text| text.contains("ztunnel_connected 1"))
    });

    let begun = Instant::now();
    node.label_namespace(true);
    node.until("the pod is enrolled", |node| enrolled(node, &pod));
    let took = begun.elapsed();
    println!("enrolled {took:?} after the label");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    assert_eq!(node.connect(&pod, DESTINATION_V6), captured(DESTINATION_V6));

    node.label_namespace(false);
    node.until("the pod has left", |node| outside(node, &pod));
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_keeps_its_rules_until_its_last_connection_has_ended() {
    let Some(Joined { mut node, pod, .. }) = Joined::new().await else { return };
    let client = node.hold_connection(&pod);
    assert!(strake_agent::connections::proxied(&pod.netns).unwrap() > 0);

    node.label_namespace(false);
    node.until("the pod is leaving", |node| node.report(&pod).filter(|report| report.state == PodState::Leaving));
    assert!(!node.is_annotated(&pod));
    assert!(node.connect(&pod, DESTINATION).starts_with("error"), "a new connection was captured");
    assert_eq!(node.report(&pod).unwrap().state, PodState::Leaving);
    assert!(!rules::leftovers(&pod.netns).await.unwrap().is_empty());
    let begun = Instant::now();
    node.kill(client);
    node.until("the pod has left", |node| outside(node, &pod));

    assert!(begun.elapsed() < Duration::from_secs(5), "the grace period was waited for");
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_leaves_no_entry_and_no_annotation() {
    let Some(Joined { node, pod, .. }) = Joined::new().await else { return };

    node.forget(&pod);
    node.until("the pod is forgotten", |node| {
        (node.report(&pod).is_none() && !node.overlay(&pod).exists()).then_some(())
    });

    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_leaves_nothing_on_the_node() {
    let Some(Joined { mut node, pod, agent, .. }) = Joined::new().await else { return };

    node.kill(agent);
    assert!(node.uninstall());

    assert!(!node.is_annotated(&pod));
    assert_eq!(rules::leftovers(&pod.netns).await.unwrap(), Vec::<String>::new());
    let pins = std::fs::read_dir(node.path("bpf/mesh")).map(Iterator::count).unwrap_or_default();
    assert_eq!(pins, 0, "pins are left");
    assert!(node.connect(&pod, DESTINATION).starts_with("error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_somebody_removes_come_back() {
    let Some(Joined { node, pod, .. }) = Joined::new().await else { return };

    rules::remove(&pod.netns).await.unwrap();
    node.until("the repair is counted", |node| {
        node.get("/metrics").filter(|text| text.contains(r#"strake_agent_repairs_total{check="rules"}"#))
    });
    // What is removed while the agent repairs is repaired a little later.
    node.until("connections are captured again", |node| {
        (node.connect(&pod, DESTINATION) == captured(DESTINATION)).then_some(())
    });

    node.until("the pod is enrolled again", |node| enrolled(node, &pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_somebody_else_removes_is_set_again() {
    let Some(Joined { node, pod, .. }) = Joined::new().await else { return };

    std::fs::remove_file(node.overlay(&pod)).unwrap();
    node.until("the annotation is set again", |node| node.is_annotated(&pod).then_some(()));

    assert_eq!(node.count("strake_agent_annotations_corrected_total"), Some(1));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
}
