//! DNS questions that the proxy answers: where they go, and what applications see of it.

use crate::{Address, PodConfig};

/// Port of nameservers (RFC 1035, section 4.2).
pub const NAMESERVER_PORT: u16 = 53;

/// Destination of what an application sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsRoute {
    /// Not a question that is captured.
    Elsewhere,
    /// To the proxy, at this address of the pod and [`PodConfig::dns_port`].
    Proxy(Address),
    /// Nowhere: the pod has no address of the question's family, at which the proxy could be asked.
    Nowhere,
}

impl DnsRoute {
    /// The route of a packet or connection to `destination` and `port` (host order).
    ///
    /// Questions to the pod itself and to loopback are for a nameserver in the pod, which asks others itself.
    #[inline(always)]
    #[must_use]
    pub const fn of(pod: &PodConfig, destination: &Address, port: u16) -> Self {
        if port != NAMESERVER_PORT || !pod.captures_dns() {
            return Self::Elsewhere;
        }
        if destination.is_loopback() || destination.is_unspecified() || pod.owns(destination) {
            return Self::Elsewhere;
        }
        let own = if destination.is_v4() { pod.ipv4 } else { pod.ipv6 };
        if own.is_unspecified() { Self::Nowhere } else { Self::Proxy(own) }
    }
}

/// Value of the map `DNS_PEERS`, kept by the kernel with an application's socket: the nameserver that the application has asked
/// last, and where the proxy answers in its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsPeer {
    /// The application's nameserver, on port [`NAMESERVER_PORT`].
    pub nameserver: Address,
    /// The proxy's address.
    pub proxy: Address,
    /// The proxy's port, host order.
    pub proxy_port: u16,
    /// Zero.
    // Named, because the verifier refuses map values with uninitialised padding.
    pub pad: u16,
}

const _: () = assert!(size_of::<DnsPeer>() == 36);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::F_DNS;

    const NAMESERVER: Address = Address::from_v4(1);
    const NAMESERVER_V6: Address = Address::from_v6([9, 0, 0, 1]);

    fn pod() -> PodConfig {
        PodConfig { flags: F_DNS, dns_port: 15053, ipv4: Address::from_v4(7), ..PodConfig::default() }
    }

    #[test]
    fn questions_go_to_the_pods_own_address_of_their_family() {
        let dual = PodConfig { ipv6: Address::from_v6([8, 0, 0, 1]), ..pod() };

        assert_eq!(DnsRoute::of(&dual, &NAMESERVER, 53), DnsRoute::Proxy(dual.ipv4));
        assert_eq!(DnsRoute::of(&dual, &NAMESERVER_V6, 53), DnsRoute::Proxy(dual.ipv6));
        assert_eq!(DnsRoute::of(&pod(), &NAMESERVER_V6, 53), DnsRoute::Nowhere);
    }

    #[test]
    fn other_ports_the_pod_itself_and_pods_without_capture_are_left_alone() {
        let loopback = Address::from_v4(u32::from_ne_bytes([127, 0, 0, 53]));
        let off = PodConfig { flags: 0, ..pod() };
        let nobody = PodConfig { dns_port: 0, ..pod() };

        for (pod, destination, port) in [
            (pod(), NAMESERVER, 54),
            (pod(), loopback, 53),
            (pod(), pod().ipv4, 53),
            (pod(), Address::from_v4(0), 53),
            (off, NAMESERVER, 53),
            (nobody, NAMESERVER, 53),
        ] {
            assert_eq!(DnsRoute::of(&pod, &destination, port), DnsRoute::Elsewhere, "{destination:?} {port}");
        }
    }
}
