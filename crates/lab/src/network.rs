//! Network namespaces of nodes and pods and the wires between them, by rtnetlink. Services are in `kube_proxy`.
//!
//! Nodes hang on one bridge in a namespace of its own. A pod's `eth0` is one end of a veth whose other end is in
//! its node: no bridge, a host route to it, and neighbour entries that never expire, so nothing has to be resolved.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
};

use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoKind, InfoVeth, LinkMessage},
        route::{RouteMessage, RouteScope},
    },
};
use runtime::sys::Netns;

use crate::addresses::{Dual, NodeNumber, SERVICES_V4, SERVICES_V6, dns};

/// Name of a node's interface to the wire, and of a pod's interface.
pub(crate) const INTERFACE: &str = "eth0";

/// Index of `eth0` in every namespace: the first after the loopback interface.
pub(crate) const INTERFACE_INDEX: u32 = 2;

const LOOPBACK_INDEX: u32 = 1;

/// Payload bytes of a frame, everywhere.
const MTU: u32 = 1500;

/// Indexes of a node's ends of its pods' veths, and of the bridge's ports, begin after this one.
const PORT_INDEX: u32 = 100;

/// The gateway that pods see, as in Calico.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Hardware address of every node's end of a veth; each is alone with one pod.
// 0x02 at the beginning: locally administered, of one station.
const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Settings of every namespace, before it has interfaces: addresses are usable at once, no router is looked for.
const COMMON: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];

/// Settings of a node: it forwards, and takes an IPv4 packet only from where the answer would go
/// (RFC 3704; the IPv6 half is in the rules of `kube_proxy`).
const NODE: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
];

/// A namespace with a connection to its network configuration.
pub(crate) struct Namespace {
    netns: Netns,
    handle: Handle,
}

impl Namespace {
    /// A new one with loopback up. The connection keeps it alive until this is dropped.
    pub(crate) async fn create() -> io::Result<Self> {
        let netns = Netns::create()?;
        // Interfaces copy these settings when they appear, so they are written before the first one.
        set(&netns, COMMON)?;
        // The netlink socket belongs to the namespace in which it is made, and keeps that namespace alive for as long
        // as it is open.
        let (connection, handle, _) = netns.run(new_connection)?;
        tokio::spawn(connection);
        let namespace = Self { netns, handle };
        namespace.change(LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build()).await?;
        Ok(namespace)
    }

    /// The namespace itself.
    pub(crate) const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The namespace without the connection.
    pub(crate) fn into_netns(self) -> Netns {
        self.netns
    }

    async fn link(&self, message: LinkMessage) -> io::Result<()> {
        self.handle.link().add(message).execute().await.map_err(io::Error::other)
    }

    async fn change(&self, message: LinkMessage) -> io::Result<()> {
        self.handle.link().change(message).execute().await.map_err(io::Error::other)
    }

    async fn address(&self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let mut request = self.handle.address().add(index, address.into(), prefix);
        // Without this an IPv6 address is tentative for a moment even where nothing is detected.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.map_err(io::Error::other)
    }

    async fn route(&self, message: RouteMessage) -> io::Result<()> {
        self.handle.route().add(message).execute().await.map_err(io::Error::other)
    }

    async fn neighbour(&self, index: u32, address: impl Into<IpAddr>, mac: [u8; 6]) -> io::Result<()> {
        let request = self.handle.neighbours().add(index, address.into()).link_layer_address(&mac);
        request.execute().await.map_err(io::Error::other)
    }
}

/// The bridge that joins the nodes.
pub(crate) struct Wire {
    namespace: Namespace,
}

impl Wire {
    pub(crate) async fn create() -> io::Result<Self> {
        let namespace = Namespace::create().await?;
        namespace.link(LinkBridge::new("wire").index(INTERFACE_INDEX).mtu(MTU).up().build()).await?;
        Ok(Self { namespace })
    }

    /// Makes a node's namespace and plugs it in. It can reach the `others`, and they it.
    pub(crate) async fn add_node(
        &self,
        number: NodeNumber,
        others: impl Iterator<Item = (NodeNumber, &Namespace)>,
    ) -> io::Result<Namespace> {
        let node = Namespace::create().await?;
        set(&node.netns, NODE)?;
        let port = LinkMessageBuilder::<LinkUnspec>::new()
            .name(format!("node{}", number.0))
            .index(PORT_INDEX + u32::from(number.0))
            .mtu(MTU)
            .build();
        // Each end is set up only when both exist and one hangs on the bridge: an end without its peer cannot be up.
        self.namespace.link(veth(port, node_mac(number), &node.netns)).await?;
        let plug = LinkUnspec::new_with_index(PORT_INDEX + u32::from(number.0)).controller(INTERFACE_INDEX).up();
        self.namespace.change(plug.build()).await?;
        node.change(LinkUnspec::new_with_index(INTERFACE_INDEX).up().build()).await?;
        let addresses = number.addresses();
        node.address(INTERFACE_INDEX, addresses.v4, 24).await?;
        node.address(INTERFACE_INDEX, addresses.v6, 64).await?;
        // Cluster DNS answers on every node, so that its address needs no rewriting and no endpoint.
        node.address(LOOPBACK_INDEX, dns().v4, 32).await?;
        node.address(LOOPBACK_INDEX, dns().v6, 128).await?;
        route_services(&node, addresses).await?;
        // Pods of both are routed by the nodes' addresses, as network plugins without an overlay do it.
        for (other_number, other) in others {
            route_pods(&node, other_number).await?;
            route_pods(other, number).await?;
        }
        Ok(node)
    }
}

/// Service addresses must have a route for a node's own connections to get as far as the rules that
/// rewrite them; what is not rewritten is rejected by the same rules.
async fn route_services(node: &Namespace, addresses: Dual) -> io::Result<()> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(SERVICES_V4.network(), SERVICES_V4.prefix_len())
        .output_interface(INTERFACE_INDEX)
        .pref_source(addresses.v4)
        .scope(RouteScope::Link);
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(SERVICES_V6.network(), SERVICES_V6.prefix_len())
        .output_interface(INTERFACE_INDEX)
        .pref_source(addresses.v6);
    node.route(v4.build()).await?;
    node.route(v6.build()).await
}

/// The way from `node` to the pods of another one, and to it itself without asking.
async fn route_pods(node: &Namespace, other: NodeNumber) -> io::Result<()> {
    let gateway = other.addresses();
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(other.pods_v4().network(), other.pods_v4().prefix_len())
        .output_interface(INTERFACE_INDEX)
        .gateway(gateway.v4);
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(other.pods_v6().network(), other.pods_v6().prefix_len())
        .output_interface(INTERFACE_INDEX)
        .gateway(gateway.v6);
    node.neighbour(INTERFACE_INDEX, gateway.v4, node_mac(other)).await?;
    node.neighbour(INTERFACE_INDEX, gateway.v6, node_mac(other)).await?;
    node.route(v4.build()).await?;
    node.route(v6.build()).await
}

/// Name of a node's end of a pod's veth.
pub(crate) fn pod_interface(host: u8) -> String {
    format!("pod{host}")
}

/// Makes a pod's namespace and hangs it on its node. `host` is the last byte of its addresses.
pub(crate) async fn add_pod(node: &Namespace, number: NodeNumber, host: u8) -> io::Result<Netns> {
    let pod = Namespace::create().await?;
    let addresses = number.pod(host);
    let mac = pod_mac(number, host);
    let index = PORT_INDEX + u32::from(host);
    let node_end = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pod_interface(host))
        .index(index)
        .address(GATEWAY_MAC.to_vec())
        .mtu(MTU)
        .build();
    node.link(veth(node_end, mac, &pod.netns)).await?;
    node.change(LinkUnspec::new_with_index(index).up().build()).await?;
    pod.change(LinkUnspec::new_with_index(INTERFACE_INDEX).up().build()).await?;

    // A prefix of 32 or 128 bits: no neighbour is on the wire, everything goes by the gateway, packets to pods of the same
    // node too. So the node's rules see each of them.
    pod.address(INTERFACE_INDEX, addresses.v4, 32).await?;
    pod.address(INTERFACE_INDEX, addresses.v6, 128).await?;
    pod.neighbour(INTERFACE_INDEX, GATEWAY_V4, GATEWAY_MAC).await?;
    pod.neighbour(INTERFACE_INDEX, GATEWAY_V6, GATEWAY_MAC).await?;
    // `onlink`: the gateway is in none of the interface's prefixes, and the kernel would refuse it.
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(INTERFACE_INDEX).gateway(GATEWAY_V4).onlink();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(INTERFACE_INDEX).gateway(GATEWAY_V6);
    pod.route(v4.build()).await?;
    pod.route(v6.build()).await?;

    node.address(index, GATEWAY_V6, 64).await?;
    node.neighbour(index, addresses.v4, mac).await?;
    node.neighbour(index, addresses.v6, mac).await?;
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(addresses.v4, 32)
        .output_interface(index)
        .pref_source(number.addresses().v4)
        .scope(RouteScope::Link);
    // The node has other addresses (cluster DNS) that the kernel might take; probes come from its own.
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(addresses.v6, 128)
        .output_interface(index)
        .pref_source(number.addresses().v6);
    node.route(v4.build()).await?;
    node.route(v6.build()).await?;
    Ok(pod.into_netns())
}

/// Takes a pod's veth away, and with it its routes and neighbours.
pub(crate) async fn remove_pod(node: &Namespace, host: u8) -> io::Result<()> {
    node.handle.link().del(PORT_INDEX + u32::from(host)).execute().await.map_err(io::Error::other)
}

/// A veth with `eth0` in another namespace, and the given end where the message is sent. Both are
/// down: an end cannot be up before it has a peer.
fn veth(here: LinkMessage, mac: [u8; 6], there: &Netns) -> LinkMessage {
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(INTERFACE)
        .index(INTERFACE_INDEX)
        .address(mac.to_vec())
        .mtu(MTU)
        .setns_by_fd(there.as_fd().as_raw_fd())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(here)))
        .build()
}

fn node_mac(number: NodeNumber) -> [u8; 6] {
    [0x02, 0, 0, 1, 0, number.0]
}

fn pod_mac(number: NodeNumber, host: u8) -> [u8; 6] {
    [0x02, 0, 0, 2, number.0, host]
}

/// Writes settings below `/proc/sys/net` of a namespace.
fn set(netns: &Netns, settings: &[(&str, &str)]) -> io::Result<()> {
    netns.run(|| {
        for (key, value) in settings {
            fs::write(format!("/proc/sys/net/{key}"), value)
                .map_err(|err| io::Error::new(err.kind(), format!("net/{key}: {err}")))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn pods_of_two_nodes_reach_each_other_over_both_families() {
        let Ok(wire) = Wire::create().await else {
            assert!(std::env::var_os("CI").is_none(), "skipped: no permission to make a netns");
            return;
        };
        let (one, two) = (NodeNumber(1), NodeNumber(2));
        let first = wire.add_node(one, std::iter::empty()).await.unwrap();
        let second = wire.add_node(two, std::iter::once((one, &first))).await.unwrap();

        let a = add_pod(&first, one, 2).await.unwrap();
        let b = add_pod(&second, two, 3).await.unwrap();

        for address in two.pod(3).both() {
            let listener = b.run(|| TcpListener::bind((address, 0))).unwrap();
            let port = listener.local_addr().unwrap().port();
            let timeout = std::time::Duration::from_secs(5);
            a.run(|| TcpStream::connect_timeout(&(address, port).into(), timeout)).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert!(one.pod(2).both().contains(&peer.ip()));
            second.netns.run(|| TcpStream::connect_timeout(&(address, port).into(), timeout)).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert!(two.addresses().both().contains(&peer.ip()), "a node came as {peer}");
        }
        remove_pod(&second, 3).await.unwrap();
        add_pod(&second, two, 3).await.unwrap();
    }
}
