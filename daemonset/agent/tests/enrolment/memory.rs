//! Memory of the agent.

use crate::node::{Node, Pod};
use crate::{PROXY_CGROUP, enrolled, outside};

/// Most that may be left of it when fifty pods have gone, in KiB: memory that the allocator has not given back yet.
const KEPT: usize = 8 << 10;

fn resident(node: &Node, agent: usize) -> usize {
    node.status(agent, "VmRSS:")
}

async fn start_pods(node: &mut Node, from: usize, to: usize) -> Vec<Pod> {
    let mut pods = Vec::new();
    for number in from..to {
        pods.push(node.start_pod(&format!("web-{number}")).await);
    }
    pods
}

/// A node with so many enrolled pods, each proved some times; its agent, and what that took with the first pod, in KiB. Fails
/// when it takes more than `limit` KiB with all of them.
async fn fits(number: usize, limit: usize) -> Option<(Node, Vec<Pod>, usize, usize)> {
    let mut node = Node::new()?;
    node.label_namespace(true);
    let mut pods = start_pods(&mut node, 0, 1).await;
    let agent = node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the first pod is enrolled", |node| enrolled(node, &pods[0]));
    let with_one = resident(&node, agent);

    pods.extend(start_pods(&mut node, 1, number).await);
    for pod in &pods {
        node.until("the pod is enrolled", |node| enrolled(node, pod));
    }
    let proofs = node.count("strake_agent_proofs_total").unwrap();
    node.until("each is proved three times more", |node| {
        (node.count("strake_agent_proofs_total")? >= proofs + 3 * number).then_some(())
    });
    let (with_all, peak, threads) =
        (resident(&node, agent), node.status(agent, "VmHWM:"), node.status(agent, "Threads:"));
    let reported: usize = node.count("process_resident_memory_bytes").unwrap() >> 10;

    println!("KiB: {with_one} with one pod, {with_all} with {number} (peak {peak}, {threads} threads)");
    assert!(with_all <= limit, "{with_all} KiB with {number} pods, at most {limit}");
    assert!(reported.abs_diff(with_all) < 8 << 10, "the metric says {reported} KiB, the kernel {with_all}");
    assert!(threads <= 16, "{threads} threads");
    Some((node, pods, agent, with_one))
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_fit_into_40_mib_and_leave_nothing_behind() {
    let Some((node, pods, agent, with_one)) = fits(50, 40 << 10).await else { return };

    node.label_namespace(false);
    for pod in &pods {
        node.until("the pod has left", |node| outside(node, pod));
    }

    node.until("memory is given back", |node| {
        let after = resident(node, agent);
        println!("KiB: {after} after the pods have left");
        (after <= with_one + KEPT).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_fit_into_60_mib() {
    let Some(_) = fits(200, 60 << 10).await else { return };
}
