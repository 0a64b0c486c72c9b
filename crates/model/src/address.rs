//! Addresses of workloads, services and gateways: network and IP, or namespace and hostname.
//! No lookups; see `state` and `view`.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_with_str::string_form;

use crate::Text;

/// The block of `length` bits around an address, host bits zero; see [`contract::address::block`].
#[must_use]
pub(crate) fn block(address: IpAddr, length: u32) -> Option<IpNet> {
    contract::address::block(address, length).map(|net| net.trunc())
}

/// Reads `10.0.0.0/8`, or an address as the block of that address alone, host bits zero.
fn parse_block(text: &str) -> Result<IpNet, AddressError> {
    contract::address::parse_block(text).map(|net| net.trunc()).ok_or_else(|| AddressError {
        value: text.to_owned(),
        expected: "an address or a block of addresses, such as 10.0.0.0/8",
    })
}

/// Reads a list of blocks with [`parse_block`].
pub(crate) fn deserialize_blocks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse_block(text).map_err(serde::de::Error::custom)).collect()
}

/// Reads a list of addresses; those that are mapped into IPv6 are IPv4.
pub(crate) fn deserialize_addresses<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<IpAddr>, D::Error> {
    let addresses = Vec::<IpAddr>::deserialize(deserializer)?;
    Ok(addresses.into_iter().map(|address| address.to_canonical()).collect())
}

/// A text that is not the address it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct AddressError {
    /// Text that was found.
    pub value: String,
    /// Expected form, with an example.
    pub expected: &'static str,
}

/// An IP within one network of the mesh; text form `network/ip`. The default network is the empty one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// Name of the network.
    pub network: Text,
    /// Canonical: never an IPv4 address mapped into IPv6.
    pub address: IpAddr,
}

/// A block of IPs within one network; text form `network/ip/length`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkCidr {
    /// Name of the network.
    pub network: Text,
    /// The block, host bits zero.
    pub cidr: IpNet,
}

/// The key of a service; text form `namespace/hostname`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// Namespace of the service.
    pub namespace: Text,
    /// Fully qualified, such as `web.shop.svc.cluster.local`.
    pub hostname: Text,
}

/// Destination that a waypoint or gateway reference names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A workload or service by address.
    Address(NetworkAddress),
    /// A service (or a workload that has a hostname) by its exact name.
    Hostname(NamespacedHostname),
}

/// A reference to a waypoint or network gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayAddress {
    /// Name or address of it.
    pub destination: GatewayDestination,
    /// Port on which it takes HBONE.
    pub hbone_mtls_port: u16,
}

impl NetworkAddress {
    /// Canonicalises `address`.
    #[must_use]
    pub fn new(network: Text, address: IpAddr) -> Self {
        Self { network, address: address.to_canonical() }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

impl FromStr for NetworkAddress {
    type Err = AddressError;
    fn from_str(value: &str) -> Result<Self, AddressError> {
        let parsed = value.split_once('/').and_then(|(network, ip)| Some((network, ip.parse::<IpAddr>().ok()?)));
        let (network, address) = parsed.ok_or_else(|| AddressError {
            value: value.to_owned(),
            expected: "network/ip, such as /10.96.0.1 for the default network",
        })?;
        Ok(Self::new(network.into(), address))
    }
}

impl fmt::Display for NetworkCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.cidr)
    }
}

impl FromStr for NetworkCidr {
    type Err = AddressError;
    fn from_str(value: &str) -> Result<Self, AddressError> {
        // Two slashes: `network/10.0.0.1` is a [`NetworkAddress`], and must not be read as a block of one.
        let parsed = value.split_once('/').filter(|(_, cidr)| cidr.contains('/'));
        let parsed = parsed.and_then(|(network, cidr)| Some((network, parse_block(cidr).ok()?)));
        let (network, cidr) = parsed.ok_or_else(|| AddressError {
            value: value.to_owned(),
            expected: "network/ip/length, such as /10.96.0.0/16",
        })?;
        Ok(Self { network: network.into(), cidr })
    }
}

impl NamespacedHostname {
    /// From its two halves.
    #[must_use]
    pub fn new(namespace: impl Into<Text>, hostname: impl Into<Text>) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl FromStr for NamespacedHostname {
    type Err = AddressError;
    fn from_str(value: &str) -> Result<Self, AddressError> {
        match value.split_once('/') {
            Some((namespace, hostname)) if !hostname.is_empty() && !hostname.contains('/') => {
                Ok(Self::new(namespace, hostname))
            }
            _ => Err(AddressError {
                value: value.to_owned(),
                expected: "namespace/hostname, such as shop/web.shop.svc.cluster.local",
            }),
        }
    }
}

impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(name) => name.fmt(f),
        }
    }
}

impl FromStr for GatewayDestination {
    type Err = AddressError;
    fn from_str(value: &str) -> Result<Self, AddressError> {
        // The address first: its form is the narrower one, and no host name is an IP address.
        if let Ok(address) = value.parse() {
            return Ok(Self::Address(address));
        }
        value
            .parse()
            .map(Self::Hostname)
            .map_err(|_| AddressError { value: value.to_owned(), expected: "network/ip or namespace/hostname" })
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.destination, self.hbone_mtls_port)
    }
}

string_form!(NetworkAddress, NetworkCidr, NamespacedHostname, GatewayDestination);

/// Serde through `Display` and `FromStr`.
mod serde_with_str {
    macro_rules! string_form {
        ($($type:ty),+) => {$(
            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }
            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                }
            }
        )+};
    }
    pub(super) use string_form;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_an_address_when_its_second_half_is_an_ip() {
        let address: GatewayDestination = "net-1/10.0.0.1".parse().unwrap();
        let hostname: GatewayDestination = "shop/waypoint.shop.svc.cluster.local".parse().unwrap();

        assert_eq!(address, GatewayDestination::Address("net-1/10.0.0.1".parse().unwrap()));
        assert_eq!(hostname.to_string(), "shop/waypoint.shop.svc.cluster.local");
        assert!(matches!(hostname, GatewayDestination::Hostname(_)));
    }

    #[test]
    fn a_mapped_ipv4_address_becomes_ipv4() {
        let address: NetworkAddress = "/::ffff:10.0.0.1".parse().unwrap();

        assert_eq!(address.to_string(), "/10.0.0.1");
    }

    #[test]
    fn a_service_key_without_a_slash_is_refused() {
        assert!("web.shop".parse::<NamespacedHostname>().is_err());
        assert!("a/b/c".parse::<NamespacedHostname>().is_err());
    }

    #[test]
    fn a_block_of_mapped_addresses_is_a_block_of_ipv4() {
        let read = |text: &str| parse_block(text).map(|block| block.to_string());

        for (text, expected) in [
            ("::ffff:10.0.0.5", "10.0.0.5/32"),
            ("::ffff:10.0.0.5/128", "10.0.0.5/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["::ffff:10.0.0.5/24", "::ffff:10.0.0.5/95", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "x", ""] {
            assert!(read(text).is_err(), "{text}");
        }
        let service: NetworkCidr = "/::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(service.to_string(), "/10.0.0.0/8");
    }

    #[test]
    fn a_block_loses_its_host_bits() {
        let block: NetworkCidr = "net/10.1.2.3/16".parse().unwrap();

        assert_eq!(block.to_string(), "net/10.1.0.0/16");
    }
}
