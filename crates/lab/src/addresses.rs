//! Addresses of nodes, pods and Services. Nothing here touches the kernel; see `network`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use xxhash_rust::xxh64::xxh64;

/// Service addresses of both families.
pub(crate) const SERVICES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// The IPv6 half; the last two bytes of both halves are the same.
pub(crate) const SERVICES_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);

/// Last two bytes of the cluster DNS Service's addresses, as kubeadm gives it.
const DNS: u16 = 10;

/// Lowest last byte of a pod's address; 1 is what people take for a gateway.
const FIRST_POD: u8 = 2;

/// Highest last byte of a pod's address.
const LAST_POD: u8 = 254;

/// Last byte of the first node's address on the wire, less one.
const NODE_OFFSET: u8 = 10;

/// An address of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Dual {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Dual {
    /// Both, IPv4 first.
    pub(crate) fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// The cluster DNS Service's addresses.
pub(crate) fn dns() -> Dual {
    service(DNS)
}

fn service(host: u16) -> Dual {
    let [high, low] = host.to_be_bytes();
    Dual { v4: Ipv4Addr::new(10, 96, high, low), v6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, host) }
}

/// A node's place among the lab's networks. Numbers begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeNumber(pub(crate) u8);

impl NodeNumber {
    /// Its addresses on the wire.
    pub(crate) fn addresses(self) -> Dual {
        let host = NODE_OFFSET + self.0;
        Dual { v4: Ipv4Addr::new(172, 18, 0, host), v6: Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, host.into()) }
    }

    /// The network of its pods.
    pub(crate) fn pods_v4(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 244, self.0, 0), 24)
    }

    /// The network of its pods.
    pub(crate) fn pods_v6(self) -> Ipv6Net {
        Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, self.0.into(), 0, 0, 0, 0), 64)
    }

    /// A pod's addresses by the last byte.
    pub(crate) fn pod(self, host: u8) -> Dual {
        Dual {
            v4: Ipv4Addr::new(10, 244, self.0, host),
            v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, self.0.into(), 0, 0, 0, host.into()),
        }
    }
}

/// Last bytes of the addresses of a node's pods. One that was given back is used again as late as possible.
#[derive(Debug, Default)]
pub(crate) struct PodHosts {
    used: BTreeSet<u8>,
    last: u8,
}

impl PodHosts {
    /// A free one; `None` when all are taken.
    pub(crate) fn take(&mut self) -> Option<u8> {
        // The search goes on behind the address that was given last and then from the beginning: a pod that gets the
        // address of one that has just gone would hide mistakes of programs that still know the old one, and would meet
        // its connections.
        let after = (self.last.saturating_add(1).max(FIRST_POD)..=LAST_POD).chain(FIRST_POD..=LAST_POD);
        let host = after.into_iter().find(|host| !self.used.contains(host))?;
        self.used.insert(host);
        self.last = host;
        Some(host)
    }

    /// Frees one.
    pub(crate) fn give_back(&mut self, host: u8) {
        self.used.remove(&host);
    }
}

/// Addresses of Services: drawn from the name, so that they are the same the next time.
#[derive(Debug, Default)]
pub(crate) struct ServiceHosts {
    by_name: BTreeMap<(String, String), u16>,
}

impl ServiceHosts {
    /// The addresses of a Service; the same ones as long as the lab lives.
    pub(crate) fn get(&mut self, namespace: &str, name: &str) -> Dual {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(host) = self.by_name.get(&key) {
            return service(*host);
        }
        // The low addresses are left to fixed Services such as cluster DNS, and the last one is the network's broadcast
        // address. Names that hash to the same address are told apart by trying the next one.
        let taken: BTreeSet<u16> = self.by_name.values().copied().collect();
        let digest = xxh64(format!("{namespace}/{name}").as_bytes(), 0);
        let start = u16::try_from(digest & 0xffff).unwrap_or_default();
        let free = |host: &u16| (256..u16::MAX).contains(host) && !taken.contains(host);
        let host = (0..=u16::MAX).map(|step| start.wrapping_add(step)).find(free).unwrap_or(start);
        self.by_name.insert(key, host);
        service(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_address_is_not_used_again_at_once() {
        let mut hosts = PodHosts::default();
        assert_eq!((hosts.take(), hosts.take()), (Some(2), Some(3)));

        hosts.give_back(2);

        assert_eq!(hosts.take(), Some(4));
        let mut rest: Vec<_> = std::iter::from_fn(|| hosts.take()).collect();
        assert_eq!(rest.pop(), Some(2));
        assert_eq!(rest.pop(), Some(254));
    }

    #[test]
    fn a_service_has_the_same_addresses_in_the_next_lab() {
        let mut first = ServiceHosts::default();
        first.get("default", "other");
        let address = first.get("default", "echo");

        assert_eq!(ServiceHosts::default().get("default", "echo"), address);
        assert_eq!(first.get("default", "echo"), address);
        assert!(SERVICES_V4.contains(&address.v4));
        assert!(SERVICES_V6.contains(&address.v6));
    }

    #[test]
    fn services_never_share_an_address() {
        let mut hosts = ServiceHosts::default();

        let all: BTreeSet<_> = (0..2000).map(|n| hosts.get("default", &format!("s{n}"))).collect();

        assert_eq!(all.len(), 2000);
        assert!(!all.contains(&dns()));
    }

    #[test]
    fn pods_and_nodes_are_where_the_guide_says() {
        let node = NodeNumber(2);

        assert_eq!(node.pod(7).v4.to_string(), "10.244.2.7");
        assert_eq!(node.pod(7).v6.to_string(), "fd00:10:244:2::7");
        assert_eq!(dns().v4.to_string(), "10.96.0.10");
        assert_eq!(dns().v6.to_string(), "fd00:10:96::a");
        assert!(node.pods_v6().contains(&node.pod(7).v6));
    }
}
