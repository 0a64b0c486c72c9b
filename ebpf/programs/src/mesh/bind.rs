//! Fails closed: a DNS socket of the proxy that stays on loopback gets no question of the pod's applications.
//!
//! The proxy binds its DNS sockets to loopback; here they get the pod's address, to which questions are sent: an application's
//! socket that had asked loopback would have a loopback address itself, and reach nothing else afterwards. Packets from outside
//! to that address and port are refused by `sk_lookup`. Hooks: `cgroup/bind4|6`, Linux 4.17; the netns cookie in them, 5.7.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::bpf_get_netns_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use ebpf_common::{Address, Counter, PodConfig};

use crate::{
    context::{read, read_words},
    maps::{count, pod},
    sock_addr::{ALLOW, port, rewrite4, rewrite6, socket},
    tag,
};

/// bind(2) of an `AF_INET` socket.
#[cgroup_sock_addr(bind4)]
pub(crate) fn strake_bind4(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let address = Address::from_v4(read!((*sock_addr).user_ip4));
    if let Some(pod) = with_dns_socket(sock_addr, address) {
        if !pod.ipv4.is_unspecified() {
            rewrite4(sock_addr, pod.ipv4, pod.dns_port);
            count(Counter::DnsSocketBound);
        }
    }
    ALLOW
}

/// bind(2) of an `AF_INET6` socket.
#[cgroup_sock_addr(bind6)]
pub(crate) fn strake_bind6(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let address = Address::from_v6(read_words!((*sock_addr).user_ip6));
    if let Some(pod) = with_dns_socket(sock_addr, address) {
        if !pod.ipv6.is_unspecified() {
            rewrite6(sock_addr, pod.ipv6, pod.dns_port);
            count(Counter::DnsSocketBound);
        }
    }
    ALLOW
}

/// The pod in which the proxy binds a DNS socket to loopback, if that is what happens here.
#[inline(always)]
fn with_dns_socket(sock_addr: *mut bpf_sock_addr, address: Address) -> Option<PodConfig> {
    let port = port(sock_addr);
    // First: every bind(2) of the node comes here.
    if !address.is_loopback() {
        return None;
    }
    // SAFETY: the context is this program's own.
    let pod = pod(unsafe { bpf_get_netns_cookie(sock_addr.cast()) })?;
    let socket = socket(sock_addr)?;
    (pod.is_dns_port(port) && tag::is_proxy(tag::of(socket))).then_some(pod)
}
