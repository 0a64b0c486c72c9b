//! Parts that several unit tests of the agent share: events of the cluster, a network namespace of their own with an interface.

use std::net::IpAddr;
use std::sync::Arc;

use kube_types::core::{Namespace, Pod};
use kube_types::{ClusterId, Event, Resource};
use runtime::sys::Netns;

use crate::netlink::Netlink;

pub(crate) fn applied(resource: Resource) -> Event {
    Event::Applied { cluster: ClusterId::default(), resource }
}

/// A namespace, with the label of the mesh or without it.
pub(crate) fn namespace(name: &str, ambient: bool) -> Event {
    let mut namespace = Namespace::default();
    namespace.metadata.name = name.to_owned();
    if ambient {
        namespace.metadata.labels.insert("istio.io/dataplane-mode".to_owned(), "ambient".to_owned());
    }
    applied(Resource::Namespace(Arc::new(namespace)))
}

/// Pod `app/web` on node `n1`, with an address.
pub(crate) fn pod(uid: &str, change: impl FnOnce(&mut Pod)) -> Event {
    let mut pod = Pod::default();
    pod.metadata.name = "web".to_owned();
    pod.metadata.namespace = "app".to_owned();
    pod.metadata.uid = uid.to_owned();
    pod.spec.node_name = Some("n1".to_owned());
    pod.status.pod_ip = Some("10.0.0.1".to_owned());
    change(&mut pod);
    applied(Resource::Pod(Arc::new(pod)))
}

/// A new network namespace, or `None` where that is not allowed; a failure when `CI` is set.
pub(crate) fn netns() -> Option<Netns> {
    let netns = Netns::create();
    if let Err(error) = &netns {
        assert!(std::env::var_os("CI").is_none(), "skipped: cannot make a netns: {error}");
        println!("skipped: cannot make a netns: {error}");
    }
    netns.ok()
}

pub(crate) async fn loopback_up(netns: &Netns) {
    let link = Netlink::open(netns).unwrap();
    link.handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
}

/// Adds an interface `eth0`, one end of a veth pair, with these addresses and returns its index.
pub(crate) async fn add_interface(netns: &Netns, addresses: &[IpAddr]) -> u32 {
    let link = Netlink::open(netns).unwrap();
    link.handle.link().add(rtnetlink::LinkVeth::new("eth0", "peer0").up().build()).execute().await.unwrap();
    // Without a carrier the kernel has no IPv6 route to the interface's address.
    let peer = rtnetlink::LinkUnspec::new_with_name("peer0").up().build();
    link.handle.link().set(peer).execute().await.unwrap();
    let index = netns.run(|| Ok(rustix::net::netdevice::name_to_index(socket()?, "eth0")?)).unwrap();
    for ip in addresses {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        let mut request = link.handle.address().add(index, *ip, length);
        request.message_mut().header.flags = rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
    }
    index
}

fn socket() -> std::io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?)
}
