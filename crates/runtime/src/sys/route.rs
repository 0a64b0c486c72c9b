//! Questions to the kernel's routing table, without a netlink library: one request, one answer.

use std::{io, net::IpAddr};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with},
};

/// `RTM_GETROUTE`, `RTM_NEWROUTE` (linux/rtnetlink.h) and `NLMSG_ERROR` (linux/netlink.h).
const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `RTN_LOCAL`: delivered to a socket of this namespace.
const LOCAL: u8 = 2;
/// Length of `nlmsghdr`, and offset of `rtm_type` behind it.
const HEADER_BYTES: usize = 16;
const ROUTE_TYPE_AT: usize = HEADER_BYTES + 7;
/// Larger than any answer about one route.
const ANSWER_BYTES: usize = 4096;

/// Returns whether the kernel delivers packets to `address` within the network namespace of the calling thread: an address of
/// an interface, a `local` route, loopback, or the unspecified address, which connect(2) takes for loopback.
/// IPv4-mapped addresses count as the IPv4 addresses that they are.
///
/// # Errors
/// When the kernel does not answer, or says something else than a route or that there is none.
pub fn is_local(address: IpAddr) -> io::Result<bool> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() {
        return Ok(true);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // The first protocol of this family, 0, is `NETLINK_ROUTE`.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    // Port 0 is the kernel. It answers before sendto(2) returns.
    sendto(&socket, &request(address), SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; ANSWER_BYTES];
    let (n, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    read_answer(&answer[..n])
}

/// `nlmsghdr`, `rtmsg`, and the destination as `rtattr`, in the machine's byte order.
fn request(address: IpAddr) -> Vec<u8> {
    let (family, bits, octets) = match address {
        IpAddr::V4(ip) => (AddressFamily::INET, 32, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AddressFamily::INET6, 128, ip.octets().to_vec()),
    };
    let mut route = vec![0; 12];
    // The kernel's families fit in the byte that `rtm_family` is.
    route[0] = family.as_raw() as u8;
    route[1] = bits;
    let attribute_bytes = 4 + octets.len() as u16;
    route.extend(attribute_bytes.to_ne_bytes());
    route.extend(DESTINATION.to_ne_bytes());
    route.extend(octets);
    let total_bytes = (HEADER_BYTES + route.len()) as u32;
    let mut message = total_bytes.to_ne_bytes().to_vec();
    message.extend(GET_ROUTE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port: there is one answer, and the kernel fills in the port.
    message.extend([0; 8]);
    message.extend(route);
    message
}

fn read_answer(answer: &[u8]) -> io::Result<bool> {
    let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "unexpected answer to a route lookup");
    let kind = answer.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(unexpected)?;
    match kind {
        NEW_ROUTE => answer.get(ROUTE_TYPE_AT).map(|kind| *kind == LOCAL).ok_or_else(unexpected),
        ERROR => {
            let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|b| b.try_into().ok());
            let code = code.map(i32::from_ne_bytes).ok_or_else(unexpected)?;
            let no_route = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];
            if no_route.iter().any(|e| e.raw_os_error() == -code) {
                return Ok(false);
            }
            Err(io::Error::from_raw_os_error(-code))
        }
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_unspecified_addresses_are_local_and_documentation_addresses_are_not() {
        for local in ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()).unwrap(), "{local}");
        }
        for other in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!is_local(other.parse().unwrap()).unwrap(), "{other}");
        }
    }

    #[test]
    fn an_answer_that_is_no_route_is_an_error() {
        assert!(read_answer(&[]).is_err());
        assert!(read_answer(&[0; 64]).is_err());
        let mut denied = vec![0; 36];
        denied[4] = ERROR as u8;
        denied[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(read_answer(&denied).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
