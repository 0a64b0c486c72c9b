//! Text of IP addresses and blocks of them, in manifests and files, in one form: an IPv4 address that is written as an IPv6
//! one (`::ffff:10.0.0.5`) is the IPv4 address, and the length of a block counts for that family.

use std::net::IpAddr;

use ipnet::IpNet;

/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED_BITS: u32 = 96;

/// Reads an address. One that is mapped into IPv6 is IPv4.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Reads a block such as `10.0.0.0/8`, or an address as the block of that address alone. Host bits stay. See [`block`].
pub fn parse_block(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(net) => block(net.addr(), net.prefix_len().into()),
        // Without a length: a block of one address, of its canonical family.
        Err(_) => parse_address(text).map(IpNet::from),
    }
}

/// The block of `length` bits around an address; host bits stay. A block of IPv4 addresses that are mapped into IPv6 is the
/// block of IPv4 addresses, with 96 bits less: connections are compared by their IPv4 address.
///
/// `None` when the length is beyond the address, and for a mapped address when it is below 96: such a block has addresses
/// of both families, and its author certainly meant another one.
pub fn block(address: IpAddr, length: u32) -> Option<IpNet> {
    let canonical = address.to_canonical();
    // The length of a mapped block counts from the start of the IPv6 address.
    let length = if canonical == address { length } else { length.checked_sub(MAPPED_BITS)? };
    IpNet::new(canonical, u8::try_from(length).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_mapped_addresses_is_a_block_of_ipv4() {
        for (text, block) in [
            ("::ffff:10.0.0.5", Some("10.0.0.5/32")),
            ("::ffff:10.0.0.5/128", Some("10.0.0.5/32")),
            ("::FFFF:10.0.0.0/104", Some("10.0.0.0/8")),
            ("::ffff:a00:5/120", Some("10.0.0.5/24")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("::ffff:10.0.0.0/24", None),
            ("::ffff:10.0.0.0/129", None),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("2001:db8::ffff:1:2/32", Some("2001:db8::ffff:1:2/32")),
            ("::/0", Some("::/0")),
            ("::/129", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/-1", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(parse_block(text).map(|block| block.to_string()).as_deref(), block, "{text}");
        }
    }
}
