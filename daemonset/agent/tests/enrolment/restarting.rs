//! An agent that ends, and the one after it.

use ebpf_loader::observe;

use crate::node::{ADDRESSES, Node, Pod};
use crate::world::ip;
use crate::{DESTINATION, Joined, PROXY_CGROUP, captured, enrolled};

/// Link and program of the pod's namespace, as the report has them.
fn lookup(node: &Node, pod: &Pod) -> (String, String) {
    let checks = node.report(pod).unwrap().checks;
    let detail = checks.into_iter().find(|check| check.name == "sk_lookup").unwrap().detail;
    let number = |noun: &str| detail.split(noun).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (number("link "), number("program "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_finds_everything_and_interrupts_nothing() {
    let Some(Joined { mut node, pod, agent, .. }) = Joined::new().await else { return };
    let written = std::fs::metadata(node.overlay(&pod)).unwrap().modified().unwrap();
    let before = lookup(&node, &pod);

    assert!(node.terminate(agent));
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    let agent = node.start_agent();
    node.until("the pod is enrolled again", |node| enrolled(node, &pod));
    let after = lookup(&node, &pod);
    assert!(before.0 == after.0 && before.1 != after.1, "{before:?} {after:?}");
    node.kill(agent);
    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    node.start_agent();
    node.until("the pod is enrolled a third time", |node| enrolled(node, &pod));

    assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
    assert_eq!(
        std::fs::metadata(node.overlay(&pod)).unwrap().modified().unwrap(),
        written,
        "the claim was written anew"
    );
}

/// True if the node's programs know the pod.
fn entered(node: &Node, pod: &Pod) -> bool {
    observe::cookies(&node.path("bpf/mesh")).unwrap()["PODS"].contains(&pod.netns.cookie().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_owns_is_removed_as_soon_as_every_enrolled_pod_is_found_and_not_before() {
    let Some(Joined { mut node, pod, agent, .. }) = Joined::new().await else { return };
    let other = node.start_pod("other").await;
    node.until("the other pod is enrolled", |node| enrolled(node, &other));

    node.kill(agent);
    node.forget(&other);
    node.stop_pause(&pod);
    let agent = node.start_agent();
    node.until("the metrics are refreshed", |node| {
        node.get("/metrics").filter(|text| text.contains("strake_agent_steering_total"))
    });
    assert!(entered(&node, &other), "an entry was removed although one pod was not found");
    assert!(entered(&node, &pod) && node.is_annotated(&pod));
    node.start_process_in(&pod, &pod.netns);

    node.until("the entry is removed", |node| (!entered(node, &other)).then_some(()));
    node.until("the pod that was not found is proved", |node| enrolled(node, &pod));
    assert!(node.terminate(agent));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_finished_while_the_agent_was_down_stay_closed_until_ztunnel_has_confirmed_that_they_left() {
    let Some(Joined { mut node, pod: found, agent, proxy }) = Joined::new().await else { return };
    let lost = node.start_pod("other").await;
    node.until("the other pod is enrolled", |node| enrolled(node, &lost));
    node.kill(agent);
    node.kill(proxy);
    node.finish(&found);
    node.finish(&lost);
    node.stop_pause(&lost);

    node.start_agent();
    node.until("the metrics are refreshed", |node| {
        node.get("/metrics").filter(|text| text.contains("strake_agent_steering_total"))
    });
    assert!(entered(&node, &found) && entered(&node, &lost), "an entry was removed although no ztunnel has confirmed");
    node.start_proxy(PROXY_CGROUP);

    for pod in [&found, &lost] {
        node.until("the entry is removed", |node| (!entered(node, pod)).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_version_before_the_present_table_are_removed_at_the_start_from_pods_outside_of_the_mesh_too() {
    let Some(mut node) = Node::new() else { return };
    let pods = [node.start_pod("web").await, node.start_pod("other").await];
    let legacy = |pod: &Pod| {
        let show = |arguments: &str| crate::world::ip_output(&pod.netns, arguments);
        [show("-4 rule show"), show("-4 route show table 100"), show("-6 rule show"), show("-6 route show table 100")]
            .concat()
    };
    for pod in &pods {
        for (family, address, lo, eth0) in [("-4", ADDRESSES[0], 0, 10), ("-6", ADDRESSES[1], 1024, 4096)] {
            ip(&pod.netns, &format!("{family} rule add pref 32764 fwmark 0x111/0xfff lookup 100"));
            ip(&pod.netns, &format!("{family} route add local default dev lo src {address} table 100 metric {lo}"));
            ip(&pod.netns, &format!("{family} route add local default dev eth0 src {address} table 100 metric {eth0}"));
        }
        assert!(legacy(pod).contains("local default dev eth0"), "{}", legacy(pod));
    }

    node.start_agent();

    for pod in &pods {
        node.until("nothing is left", |_| {
            let left = legacy(pod);
            (!left.contains("lookup 100") && !left.contains("local default")).then_some(())
        });
    }
}
