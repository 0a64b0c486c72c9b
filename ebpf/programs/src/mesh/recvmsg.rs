//! Fails closed: without it resolvers ignore the proxy's answers, which come from somebody whom they have not asked.
//!
//! Answers of the proxy come from the nameserver that was asked. All other packets stay as they are.
//!
//! Hooks: `cgroup/recvmsg4|6`, Linux 5.2.

use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use ebpf_common::{Address, NAMESERVER_PORT};

use crate::{
    context::{read, read_words},
    dns,
    sock_addr::{ALLOW, port, rewrite4, rewrite6, socket},
};

/// The source of a packet that an `AF_INET` socket has received.
#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn strake_recvmsg4(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let source = Address::from_v4(read!((*sock_addr).user_ip4));
    receive(sock_addr, source, |nameserver| rewrite4(sock_addr, nameserver, NAMESERVER_PORT))
}

/// The source of a packet that an `AF_INET6` socket has received; IPv4 is mapped.
#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn strake_recvmsg6(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let source = Address::from_v6(read_words!((*sock_addr).user_ip6));
    receive(sock_addr, source, |nameserver| rewrite6(sock_addr, nameserver, NAMESERVER_PORT))
}

#[inline(always)]
fn receive(sock_addr: *mut bpf_sock_addr, source: Address, rewrite: impl FnOnce(Address)) -> i32 {
    let port = port(sock_addr);
    if let Some(socket) = socket(sock_addr) {
        if let Some(nameserver) = dns::nameserver(socket, &source, port) {
            rewrite(nameserver);
        }
    }
    ALLOW
}
