//! Fails closed: without it an application sees that it is connected to the proxy, and is so.
//!
//! The peer of a socket that is connected to the proxy for DNS is the nameserver that the application has named. All others stay
//! as they are.
//!
//! Hooks: `cgroup/getpeername4|6`, Linux 5.8.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ebpf_common::{Address, NAMESERVER_PORT};

use crate::{
    context::{read, read_words},
    dns,
    sock_addr::{ALLOW, port, rewrite4, rewrite6, socket},
};

/// getpeername(2) of an `AF_INET` socket.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn strake_getpeer4(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let peer = Address::from_v4(read!((*sock_addr).user_ip4));
    name(sock_addr, peer, |nameserver| rewrite4(sock_addr, nameserver, NAMESERVER_PORT))
}

/// getpeername(2) of an `AF_INET6` socket; IPv4 is mapped.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn strake_getpeer6(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let peer = Address::from_v6(read_words!((*sock_addr).user_ip6));
    name(sock_addr, peer, |nameserver| rewrite6(sock_addr, nameserver, NAMESERVER_PORT))
}

#[inline(always)]
fn name(sock_addr: *mut bpf_sock_addr, peer: Address, rewrite: impl FnOnce(Address)) -> i32 {
    let port = port(sock_addr);
    if let Some(socket) = socket(sock_addr) {
        if let Some(nameserver) = dns::nameserver(socket, &peer, port) {
            rewrite(nameserver);
        }
    }
    ALLOW
}
