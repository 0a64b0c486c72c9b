//! Memory of the agent.

use crate::node::{Node, Pod};
use crate::{PROXY_CGROUP, enrolled, outside};

const PODS: usize = 50;

/// Most that the agent may take with [`PODS`] pods, in KiB.
const LIMIT: usize = 40 << 10;

/// Most that may be left of it when they have gone, in KiB: memory that the allocator has not given back yet.
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

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_fit_into_40_mib_and_leave_nothing_behind() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let first = start_pods(&mut node, 0, 1).await;
    let agent = node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    node.until("the first pod is enrolled", |node| enrolled(node, &first[0]));
    let with_one = resident(&node, agent);

    let pods = start_pods(&mut node, 1, PODS).await;
    for pod in &pods {
        node.until("the pod is enrolled", |node| enrolled(node, pod));
    }
    let proofs = node.count("strake_agent_proofs_total").unwrap();
    node.until("each is proved three times more", |node| {
        (node.count("strake_agent_proofs_total")? >= proofs + 3 * PODS).then_some(())
    });
    let (with_all, peak, threads) =
        (resident(&node, agent), node.status(agent, "VmHWM:"), node.status(agent, "Threads:"));
    let reported: usize = node.count("process_resident_memory_bytes").unwrap() >> 10;

    node.label_namespace(false);
    for pod in first.iter().chain(&pods) {
        node.until("the pod has left", |node| outside(node, pod));
    }
    println!("KiB: {with_one} with one pod, {with_all} with {PODS} (peak {peak}, {threads} threads)");
    let after = node.until("memory is given back", |node| {
        let after = resident(node, agent);
        println!("KiB: {after} after the pods have left");
        (after <= with_one + KEPT).then_some(after)
    });

    println!("KiB: {after} in the end");
    assert!(with_all <= LIMIT, "{with_all} KiB with {PODS} pods, at most {LIMIT}");
    assert!(reported.abs_diff(with_all) < 8 << 10, "the metric says {reported} KiB, the kernel {with_all}");
    assert!(threads <= 16, "{threads} threads");
}
