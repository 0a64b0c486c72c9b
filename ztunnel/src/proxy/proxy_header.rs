//! The PROXY protocol v2 header that tells an application behind a tunnel who its client is.

use identity::Identity;
use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
/// The TLV that holds the client's SPIFFE id.
const TLV_SOURCE_IDENTITY: u8 = 0xD0;

/// The header for a stream from `client` to `destination`. Mixed families are sent as IPv6.
pub(super) fn encode(client: SocketAddr, destination: SocketAddr, identity: Option<&Identity>) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    let family = match (client.ip(), destination.ip()) {
        (IpAddr::V4(c), IpAddr::V4(d)) => {
            body.extend(c.octets());
            body.extend(d.octets());
            // TCP over IPv4.
            0x11
        }
        (c, d) => {
            body.extend(v6(c));
            body.extend(v6(d));
            // TCP over IPv6.
            0x21
        }
    };
    body.extend(client.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    if let Some(identity) = identity {
        let text = identity.as_str().as_bytes();
        // An identity is at most 2048 bytes long.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        body.push(TLV_SOURCE_IDENTITY);
        body.extend(length.to_be_bytes());
        body.extend(&text[..usize::from(length).min(text.len())]);
    }
    let mut header = Vec::with_capacity(16 + body.len());
    header.extend(SIGNATURE);
    header.push(VERSION_COMMAND);
    header.push(family);
    header.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(body);
    header
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_holds_addresses_ports_and_identity() {
        let id: Identity = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();

        let h = encode("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap(), Some(&id));

        assert_eq!(&h[..12], &SIGNATURE);
        assert_eq!((h[12], h[13]), (0x21, 0x11));
        assert_eq!(usize::from(u16::from_be_bytes([h[14], h[15]])), h.len() - 16);
        assert_eq!(&h[16..28], &[10, 0, 0, 1, 10, 0, 0, 2, 0x03, 0xE8, 0, 80]);
        assert_eq!(h[28], 0xD0);
        assert_eq!(&h[31..], id.as_str().as_bytes());
    }

    #[test]
    fn mixed_families_are_sent_as_ipv6() {
        let h = encode("10.0.0.1:1".parse().unwrap(), "[fd00::1]:80".parse().unwrap(), None);
        assert_eq!((h[13], h.len()), (0x21, 16 + 36));
    }
}
