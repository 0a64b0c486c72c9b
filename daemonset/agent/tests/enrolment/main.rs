//! The agent as a process, with the real kernel programs, against a proxy that only listens and tells where
//! connections were going.

mod facts;
mod finding;
mod joining;
mod killed;
mod memory;
mod node;
mod plugin;
mod proxies;
mod relay;
mod restarting;
mod roles;
mod rounds;
mod starting;
mod wire;
mod world;

use contract::admin::agent::PodState;
use node::{Node, Pod};

const PROXY_CGROUP: &str = "kubepods/pod99999999-9999-4999-8999-999999999999/ztunnel";
const DESTINATION: &str = "10.1.2.3:80";
/// The proxy leaves connections to this address open.
const HELD: &str = "10.1.2.3:81";
const DESTINATION_V6: &str = "[fd01::3]:80";

/// A node whose namespace `app` is in the mesh, with an agent, a proxy, and a pod that is enrolled.
struct Joined {
    node: Node,
    pod: Pod,
    agent: usize,
    proxy: usize,
}

impl Joined {
    /// `None` where this machine cannot do it.
    async fn new() -> Option<Self> {
        Self::with_proxy(PROXY_CGROUP).await
    }

    /// As [`Joined::new`], with the proxy in this cgroup.
    async fn with_proxy(cgroup: &str) -> Option<Self> {
        let mut node = Node::new()?;
        node.label_namespace(true);
        let pod = node.start_pod("web").await;
        let agent = node.start_agent();
        let proxy = node.start_proxy(cgroup);
        node.until("the pod is enrolled", |node| enrolled(node, &pod));
        Some(Self { node, pod, agent, proxy })
    }
}

/// Answer that an application reads from the proxy.
fn captured(to: &str) -> String {
    format!("port 15001 for Ok({to})")
}

fn enrolled(node: &Node, pod: &Pod) -> Option<()> {
    let report = node.report(pod)?;
    let proved = !report.checks.is_empty() && report.checks.iter().all(|check| check.ok);
    (report.state == PodState::Enrolled && proved && node.is_annotated(pod)).then_some(())
}

fn outside(node: &Node, pod: &Pod) -> Option<()> {
    (node.report(pod)?.state == PodState::NotSelected && !node.is_annotated(pod)).then_some(())
}
