//! Cost of proofs on a node with many pods.

use crate::node::Node;
use crate::{PROXY_CGROUP, enrolled};

const PODS: usize = 12;

/// Regular proofs of each pod that are waited for.
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn one_look_at_the_kernels_links_serves_the_proofs_of_all_pods() {
    let Some(mut node) = Node::new() else { return };
    node.label_namespace(true);
    let mut pods = Vec::new();
    for number in 0..PODS {
        pods.push(node.start_pod(&format!("web-{number}")).await);
    }
    node.start_agent();
    node.start_proxy(PROXY_CGROUP);
    for pod in &pods {
        node.until("the pod is enrolled", |node| enrolled(node, pod));
    }
    let counted = |node: &Node| {
        let (proofs, surveys) = (node.count("strake_agent_proofs_total")?, node.count("strake_agent_surveys_total")?);
        Some((proofs, surveys))
    };
    let before = node.until("proofs are counted", counted);

    let after = node.until("every pod is proved some more times", |node| {
        counted(node).filter(|(proofs, _)| proofs - before.0 >= PODS * ROUNDS)
    });

    let (proofs, surveys) = (after.0 - before.0, after.1 - before.1);
    // Two in a round, and one more where a round was cut: pods are not proved all at once.
    assert!(surveys <= 2 * (ROUNDS + 1) + 1, "{surveys} surveys for {proofs} proofs");
}
