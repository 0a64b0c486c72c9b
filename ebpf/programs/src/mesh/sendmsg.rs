//! Fails closed: a DNS question that cannot be sent to the proxy is refused. All other packets pass.
//!
//! UDP packets of sockets that are not connected, or that name another destination than theirs. Hooks: `cgroup/sendmsg4|6`, Linux
//! 4.18; the netns cookie in them, 5.7.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::bpf_get_netns_cookie, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use ebpf_common::{Address, NAMESERVER_PORT};

use crate::{
    context::{read, read_words},
    dns::{self, Question},
    maps::pod,
    sock_addr::{ALLOW, REFUSE, port, rewrite4, rewrite6, socket},
    tag,
};

/// A packet to an IPv4 address, of an `AF_INET6` socket too.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn strake_sendmsg4(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    send(sock_addr, Address::from_v4(read!((*sock_addr).user_ip4)), |proxy, port| rewrite4(sock_addr, proxy, port))
}

/// A packet to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn strake_sendmsg6(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let destination = Address::from_v6(read_words!((*sock_addr).user_ip6));
    send(sock_addr, destination, |proxy, port| rewrite6(sock_addr, proxy, port))
}

#[inline(always)]
fn send(sock_addr: *mut bpf_sock_addr, destination: Address, rewrite: impl FnOnce(Address, u16)) -> i32 {
    let port = port(sock_addr);
    // First: every packet of the node comes here that is sent without a connection.
    if port != NAMESERVER_PORT {
        return ALLOW;
    }
    // SAFETY: the context is this program's own.
    let Some(pod) = pod(unsafe { bpf_get_netns_cookie(sock_addr.cast()) }) else { return ALLOW };
    let Some(socket) = socket(sock_addr) else { return REFUSE };
    // The proxy's own questions are for nameservers.
    if tag::is_proxy(tag::of(socket)) {
        return ALLOW;
    }
    match dns::question(socket, &pod, destination, port) {
        Question::No => ALLOW,
        Question::Redirected(proxy) => {
            rewrite(proxy, pod.dns_port);
            ALLOW
        }
        Question::Refused => REFUSE,
    }
}
