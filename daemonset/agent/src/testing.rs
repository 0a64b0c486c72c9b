//! Parts that several unit tests of the agent share: a namespace of their own with an interface.

use std::net::IpAddr;

use runtime::sys::Netns;

use crate::netlink::Netlink;

/// A new namespace, or `None` where that is not allowed; a failure when `CI` is set.
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
