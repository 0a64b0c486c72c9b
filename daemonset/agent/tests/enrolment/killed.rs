//! An agent that is killed, wherever it is, and the one after it. What happens at every single step is tested with a node
//! that stands still there (`enrol::tests::restarting`); here the kernel, the proxy and a busy pod are real, and the
//! moment is whatever comes.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ebpf_loader::observe;
use strake_agent::{rules, sysctl};

use crate::node::{Node, Pod};
use crate::world::{PLAIN, World};
use crate::{DESTINATION, PROXY_CGROUP, captured, enrolled, outside};

/// Kills on the way in and out: at once, some within 50 ms, and as many at random.
const EARLY: [u64; 4] = [0, 8, 20, 45];
const RANDOM: usize = 4;

/// Longer than a pod takes to join.
const JOINS: u64 = 250;
/// Longer than a pod without proxied connections takes to leave: listeners stay for a second.
const LEAVES: u64 = 1300;

/// Ports of the proxy's listeners in a pod, as `/proc/net/tcp6` writes them.
const LISTENERS: [&str; 3] = [":3A99 ", ":3A9E ", ":3AA0 "];

/// Moments of death in milliseconds after the label changed.
fn moments(longest: u64) -> impl Iterator<Item = Duration> {
    let random = (0..RANDOM).map(move |number| RandomState::new().hash_one(number) % longest);
    EARLY.into_iter().chain(random).map(Duration::from_millis)
}

/// Everything of the mesh that is in the pod and on the node, in words.
async fn left(node: &Node, pod: &Pod) -> Vec<String> {
    let mut left = rules::leftovers(&pod.netns).await.unwrap();
    left.extend(observe::links_at(&pod.netns).unwrap());
    left.extend(
        observe::cookies(&node.path("bpf/mesh")).unwrap()["PODS"].iter().map(|cookie| format!("entry of {cookie}")),
    );
    if sysctl::missing(&pod.netns).unwrap().len() < sysctl::SETTINGS.len() {
        left.push("settings".to_owned());
    }
    left.extend(node.files("run/settings").iter().map(|file| format!("kept {}", file.display())));
    left.extend(
        node.files("bpf/mesh")
            .iter()
            .filter(|pin| pin.parent().unwrap().ends_with("pods"))
            .map(|pin| format!("pin {}", pin.display())),
    );
    let sockets = pod.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp6")).unwrap();
    let listening = sockets.lines().filter(|line| line.contains(" 0A "));
    left.extend(listening.filter(|line| LISTENERS.iter().any(|port| line.contains(port))).map(ToOwned::to_owned));
    left.extend(node.is_annotated(pod).then(|| "annotation".to_owned()));
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_an_agent_is_killed_the_next_one_ends_what_it_began_and_no_call_fails() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(false);
    let pod = node.start_pod("web").await;
    let _world = World::of(&pod).await;
    let mut agent = node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the proxy is connected", |node| node.count("ztunnel_connected").filter(|count| *count == 1));
    assert_eq!(node.connect(&pod, DESTINATION), PLAIN);
    let calls = node.start_calling(&pod);

    for (joining, leaving) in moments(JOINS).zip(moments(LEAVES)) {
        println!("killed {joining:?} after the label came and {leaving:?} after it went");
        node.label_namespace(true);
        std::thread::park_timeout(joining);
        node.kill(agent);
        agent = node.start_agent();
        node.until("the pod is enrolled", |node| enrolled(node, &pod));
        assert_eq!(node.connect(&pod, DESTINATION), captured(DESTINATION));
        let there = left(&node, &pod).await.join(", ");
        for kind in ["rule", "route", "link", "entry", "settings", "kept", "pin", LISTENERS[0], "annotation"] {
            assert!(there.contains(kind), "no {kind}: {there}");
        }

        node.label_namespace(false);
        std::thread::park_timeout(leaving);
        node.kill(agent);
        agent = node.start_agent();
        node.until("the pod has left", |node| outside(node, &pod));
        assert_eq!(left(&node, &pod).await, [""; 0]);
        assert_eq!(node.connect(&pod, DESTINATION), PLAIN);
    }

    let answers = node.stop_calling(calls);
    let (plain, through): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| *answer == PLAIN);
    println!("{} calls in plain, {} through the proxy", plain.len(), through.len());
    assert!(!plain.is_empty() && !through.is_empty());
    let broken: Vec<_> = through.into_iter().filter(|answer| **answer != captured(DESTINATION)).collect();
    assert!(broken.is_empty(), "{broken:?}");
}
