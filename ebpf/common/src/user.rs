//! The user-space half: conversions from `std` types, and aya's promise that these types are
//! plain bytes.

extern crate std;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Address, Admission, DnsPeer, LocalKey, PROBES_PER_POD, PodConfig, ProbePorts, SocketKey, Tag, Tuple};

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words_be = [0; 4];
        // In the order of memory: the words hold network order on every machine.
        for (word, bytes) in words_be.iter_mut().zip(octets.as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Self { words_be }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::V6(address).into()
    }
}

impl Address {
    /// As the standard library's type, IPv4 where it is that; `None` for [`Address::NONE`].
    #[must_use]
    pub fn to_ip(&self) -> Option<IpAddr> {
        let mut octets = [0; 16];
        for (bytes, word) in octets.as_chunks_mut().0.iter_mut().zip(self.words_be) {
            *bytes = word.to_ne_bytes();
        }
        (*self != Self::NONE).then(|| IpAddr::from(octets).to_canonical())
    }
}

impl ProbePorts {
    /// The first [`PROBES_PER_POD`] of these ports.
    pub fn of(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut probes = Self::default();
        for (place, port) in probes.ports.iter_mut().zip(ports.into_iter().filter(|port| *port != 0)) {
            *place = port;
        }
        probes
    }

    /// The ports, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports[..PROBES_PER_POD].iter().copied().filter(|port| *port != 0)
    }
}

macro_rules! plain_bytes {
    ($($type:ty)*) => {$(
        // SAFETY: `repr(C)`, `Copy`, made of integers only, and without padding (sizes are asserted).
        unsafe impl aya::Pod for $type {}
    )*};
}

plain_bytes!(Address Admission DnsPeer LocalKey PodConfig ProbePorts SocketKey Tag Tuple);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.1.2.3", "fd00::1:2", "127.0.0.1", "::1"] {
            let ip: IpAddr = text.parse().unwrap();

            assert_eq!(Address::from(ip).to_ip(), Some(ip));
        }
        assert_eq!(Address::NONE.to_ip(), None);
        assert!(Address::from(IpAddr::from([127, 0, 0, 1])).is_loopback());
    }
}
