//! Entry of an enrolled pod, as the kernel programs read it.

use crate::Address;

/// New outbound TCP connections of the pod go to the proxy.
pub const F_OUT: u32 = 1;
/// New inbound TCP connections of the pod go to the proxy.
pub const F_IN: u32 = 1 << 1;
/// DNS questions of the pod go to the proxy's [`PodConfig::dns_port`], those over TCP too.
pub const F_DNS: u32 = 1 << 2;
/// New inbound connections of the pod go past the proxy, but for tunnels. Counts with [`F_IN`] only.
pub const F_BYPASS_IN: u32 = 1 << 3;

/// Value of the map `PODS`; its key is the cookie of the pod's network namespace.
///
/// Without [`F_OUT`] and [`F_IN`] nothing new is captured, but what was captured before is
/// still steered: a pod that leaves the mesh keeps its connections until they end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodConfig {
    /// [`F_OUT`], [`F_IN`], [`F_DNS`], [`F_BYPASS_IN`].
    pub flags: u32,
    /// Index, inside the pod's namespace, of the interface that carries its address.
    pub interface: u32,
    /// Port on which the proxy accepts outbound connections; host order, as all ports here.
    pub out_port: u16,
    /// Port on which the proxy accepts inbound plaintext connections.
    pub in_port: u16,
    /// Port on which the proxy accepts tunnels (HBONE).
    pub hbone_port: u16,
    /// Port on which the proxy answers DNS; 0: it does not. Whether its sockets are bound to the pod's address and closed to
    /// the outside depends on this port, whether questions are sent there on [`F_DNS`].
    pub dns_port: u16,
    /// The pod's IPv4 address, or [`Address::NONE`].
    pub ipv4: Address,
    /// The pod's IPv6 address, or [`Address::NONE`].
    pub ipv6: Address,
}

// A pinned map keeps the size of its values: with another one the layout needs a new number.
const _: () = assert!(size_of::<PodConfig>() == 48);

impl PodConfig {
    /// Returns whether it is one of the two addresses by which the mesh knows the pod.
    #[inline(always)]
    #[must_use]
    pub const fn owns(&self, address: &Address) -> bool {
        !address.is_unspecified() && (address.same(&self.ipv4) || address.same(&self.ipv6))
    }

    /// Returns whether the pod's DNS questions go to the proxy.
    #[inline(always)]
    #[must_use]
    pub const fn captures_dns(&self) -> bool {
        self.flags & F_DNS != 0 && self.dns_port != 0
    }

    /// Returns whether it is the proxy's DNS port.
    #[inline(always)]
    #[must_use]
    pub const fn is_dns_port(&self, port: u16) -> bool {
        port != 0 && port == self.dns_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_without_an_address_does_not_own_the_unspecified_one() {
        let pod = PodConfig { ipv4: Address::from_v4(1), ..PodConfig::default() };

        assert!(pod.owns(&Address::from_v4(1)));
        assert!(!pod.owns(&Address::NONE));
    }
}
