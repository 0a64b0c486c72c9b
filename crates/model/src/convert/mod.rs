//! Wire messages to checked types. An error is about one resource: the others of its response stay good.

mod authorization;
mod service;
mod workload;

use std::net::IpAddr;

use ipnet::IpNet;
use proto::workload as pb;

use crate::{
    Address, AddressError, GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress, Ports, Text, address,
};

/// Reason for which one resource was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An address resource that is neither workload nor service.
    #[error("the address is neither a workload nor a service")]
    EmptyAddress,
    /// A required name is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An address of the wrong length.
    #[error("{field}: an address has 4 or 16 bytes, not {bytes}")]
    AddressLength { field: &'static str, bytes: usize },
    /// A prefix that is longer than its address, or one that ends before the IPv4 part of a mapped address.
    #[error("{field}: prefix length {length} is not valid for {address}")]
    PrefixLength { field: &'static str, address: IpAddr, length: u32 },
    /// A number that the enumeration does not have.
    #[error("{field}: unknown value {value}")]
    UnknownEnum { field: &'static str, value: i32 },
    /// A value that exists and that we do not carry out.
    #[error("{field}: {value} is not supported")]
    Unsupported { field: &'static str, value: &'static str },
    /// A port beyond 65535.
    #[error("{field}: {value} is not a port number")]
    Port { field: &'static str, value: u32 },
    /// A gateway or waypoint without destination.
    #[error("{0}: no destination")]
    NoDestination(&'static str),
    /// A text that is not a `namespace/hostname`.
    #[error("services: {0}")]
    ServiceKey(#[from] AddressError),
    /// A string match without kind: dropping it could turn the rule into its opposite.
    #[error("{0}: a match of no known kind")]
    StringMatch(&'static str),
}

/// Converts a discovered address.
///
/// # Errors
/// When any field cannot be carried out as it stands.
// Nothing of a resource is applied unless all of its fields are valid.
pub fn address(message: pb::Address) -> Result<Address, ConvertError> {
    match message.r#type {
        Some(pb::address::Type::Workload(workload)) => Ok(Address::Workload(workload.try_into()?)),
        Some(pb::address::Type::Service(service)) => Ok(Address::Service(service.try_into()?)),
        None => Err(ConvertError::EmptyAddress),
    }
}

fn or_default(value: String, default: fn() -> Text) -> Text {
    if value.is_empty() { default() } else { value.into() }
}

/// In the family it was written in.
fn written_ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ConvertError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(IpAddr::from(v4))
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(v6))
    } else {
        Err(ConvertError::AddressLength { field, bytes: bytes.len() })
    }
}

fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ConvertError> {
    written_ip(field, bytes).map(|address| address.to_canonical())
}

fn cidr(field: &'static str, bytes: &[u8], length: u32) -> Result<IpNet, ConvertError> {
    let address = written_ip(field, bytes)?;
    // The length counts for the address as it was written.
    address::block(address, length).ok_or(ConvertError::PrefixLength { field, address, length })
}

fn port(field: &'static str, value: u32) -> Result<u16, ConvertError> {
    u16::try_from(value).map_err(|_| ConvertError::Port { field, value })
}

fn ports(field: &'static str, list: &[pb::Port]) -> Result<Ports, ConvertError> {
    list.iter().map(|p| Ok((port(field, p.service_port)?, port(field, p.target_port)?))).collect()
}

fn gateway(field: &'static str, message: Option<pb::GatewayAddress>) -> Result<Option<GatewayAddress>, ConvertError> {
    let Some(message) = message else { return Ok(None) };
    let destination = match message.destination.ok_or(ConvertError::NoDestination(field))? {
        pb::gateway_address::Destination::Hostname(name) => {
            GatewayDestination::Hostname(NamespacedHostname::new(name.namespace, name.hostname))
        }
        pb::gateway_address::Destination::Address(address) => {
            GatewayDestination::Address(NetworkAddress::new(address.network.into(), ip(field, &address.address)?))
        }
    };
    Ok(Some(GatewayAddress { destination, hbone_mtls_port: port(field, message.hbone_mtls_port)? }))
}

fn unknown(field: &'static str, value: i32) -> ConvertError {
    ConvertError::UnknownEnum { field, value }
}

fn required(field: &'static str, value: String) -> Result<String, ConvertError> {
    if value.is_empty() { Err(ConvertError::Missing(field)) } else { Ok(value) }
}
