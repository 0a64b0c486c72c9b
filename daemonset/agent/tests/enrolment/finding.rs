//! Finding the namespace of a pod's sockets.

use runtime::sys::Netns;
use strake_agent::cgroups::CgroupTree;
use strake_agent::finder::{FindError, Finder};

use crate::node::{self, Node};

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_of_a_pod_is_the_one_that_holds_its_address() {
    let Some(mut node) = Node::new() else { return };
    let pod = node.start_pod("web").await;
    let foreign = Netns::create().unwrap();
    node.start_process_in(&pod, &foreign);
    let host = Netns::current().unwrap();
    let finder = Finder::new(CgroupTree::new(node.cgroup()), host.id());
    let ips = node::ADDRESSES.map(|ip| ip.parse().unwrap());

    let found = finder.find(&pod.uid, &ips).await.unwrap();
    let elsewhere = finder.find(&pod.uid, &["10.9.9.9".parse().unwrap()]).await;
    let unknown = finder.find("00000000-0000-4000-8000-ffffffffffff", &ips).await;
    let early = finder.find(&pod.uid, &[]).await;

    assert_eq!(found.netns.id(), pod.netns.id());
    assert!(matches!(elsewhere, Err(FindError::ForeignNamespace { candidates: 2 })), "{elsewhere:?}");
    assert!(matches!(unknown, Err(FindError::NoProcess)));
    assert!(matches!(early, Err(FindError::NoAddress)));
    let at_home = Finder::new(CgroupTree::new(node.cgroup()), pod.netns.id()).find(&pod.uid, &ips).await;
    assert!(at_home.is_err(), "the node's own namespace is nobody's");
}
