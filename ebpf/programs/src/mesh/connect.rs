//! Fails closed for enrolled pods: what cannot be marked, or has no rule that the mark would meet, may not connect.
//! Others pass untouched.
//!
//! An application's TCP connection gets the mark that the pod's routing rule sends to `lo`; the
//! destination is not rewritten, so `getpeername` tells the truth. A connection of the proxy to the
//! pod itself, with the client's address as its own, goes to `lo` too, because the answers must come
//! back to the proxy. The sockets of both are confined to `lo`; see `egress`. DNS questions are an exception: they, and UDP
//! sockets that connect to a nameserver, are connected to the proxy at the pod's own address; see `dns`. Hooks: `cgroup/connect4|6`, Linux 4.17; the netns cookie in them, 5.7.

use core::{ffi::c_void, ptr::NonNull};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::bpf_get_netns_cookie,
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use ebpf_common::{Address, Counter, F_OUT, LOOPBACK_INTERFACE, LocalKey, PodConfig};

use crate::{
    context::{read, read_words},
    dns::{self, Question},
    maps::{count, is_known_local, pod},
    sock_addr::{ALLOW, REFUSE, port, rewrite4, rewrite6},
    socket::{MPTCP, TCP, UDP, bind_to_interface, is_looped, looped, set_mark, unlooped},
    tag,
};

/// connect(2) of an `AF_INET` socket.
#[cgroup_sock_addr(connect4)]
pub(crate) fn strake_connect4(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let source = |socket: *mut bpf_sock| Address::from_v4(read!((*socket).src_ip4));
    let rewrite = |proxy, port| rewrite4(sock_addr, proxy, port);
    connect(sock_addr, Address::from_v4(read!((*sock_addr).user_ip4)), source, rewrite)
}

/// connect(2) of an `AF_INET6` socket, to IPv4-mapped addresses too.
#[cgroup_sock_addr(connect6)]
pub(crate) fn strake_connect6(context: SockAddrContext) -> i32 {
    let sock_addr = context.sock_addr;
    let source = |socket: *mut bpf_sock| Address::from_v6(read_words!((*socket).src_ip6));
    let rewrite = |proxy, port| rewrite6(sock_addr, proxy, port);
    connect(sock_addr, Address::from_v6(read_words!((*sock_addr).user_ip6)), source, rewrite)
}

/// Handles connect(2) of both families. `source` reads the address that the socket is bound to, `rewrite` replaces the
/// destination.
#[inline(always)]
fn connect(
    sock_addr: *mut bpf_sock_addr,
    destination: Address,
    source: impl Fn(*mut bpf_sock) -> Address,
    rewrite: impl FnOnce(Address, u16),
) -> i32 {
    let context: *mut c_void = sock_addr.cast();
    // SAFETY: the context is this program's own.
    let netns_cookie = unsafe { bpf_get_netns_cookie(context) };
    let Some(pod) = pod(netns_cookie) else { return ALLOW };
    let protocol = read!((*sock_addr).protocol);
    let port = port(sock_addr);
    if protocol != TCP && protocol != MPTCP && protocol != UDP {
        return ALLOW;
    }
    let Some(socket) = NonNull::new(read!((*sock_addr).__bindgen_anon_1.sk)) else { return REFUSE };
    let to_pod = pod.owns(&destination);
    if tag::is_proxy(tag::of(socket)) {
        if protocol == UDP {
            return ALLOW;
        }
        // Somebody outside has asked for the port of the proxy itself.
        if to_pod && pod.is_dns_port(port) {
            count(Counter::DnsOutsider);
            return REFUSE;
        }
        let inside = to_pod || is_known_local(LocalKey { netns_cookie, address: destination });
        let connection = Connection { context, socket, netns_cookie };
        return if inside { app_leg(&connection, source(socket.as_ptr()), destination) } else { ALLOW };
    }
    let to_proxy = match dns::question(socket, &pod, destination, port) {
        Question::No => false,
        Question::Redirected(proxy) => {
            rewrite(proxy, pod.dns_port);
            true
        }
        Question::Refused => return REFUSE,
    };
    if protocol == UDP {
        return ALLOW;
    }
    let itself = to_proxy || to_pod || destination.is_loopback() || destination.is_unspecified();
    application(&Connection { context, socket, netns_cookie }, &pod, itself, is_routed(&pod, &destination))
}

/// The socket that connects, and where.
struct Connection {
    context: *mut c_void,
    socket: NonNull<bpf_sock>,
    netns_cookie: u64,
}

/// Returns whether the mark would bring the packets to `lo`. Rule and routes exist for families of which the pod has an address: without
/// them a marked packet leaves by the main table, past the proxy.
///
/// Nothing is right for IPv6 link-local destinations. Their scope, which may name any interface, is not to be seen here,
/// and binds the socket after this hook; nor could the proxy dial them. IPv4's (169.254.0.0/16) have no scope and are
/// routed like all others.
#[inline(always)]
fn is_routed(pod: &PodConfig, destination: &Address) -> bool {
    let own = if destination.is_v4() { &pod.ipv4 } else { &pod.ipv6 };
    !own.is_unspecified() && !destination.is_link_local_v6()
}

/// The application connects.
#[inline(always)]
fn application(connection: &Connection, pod: &PodConfig, to_itself: bool, is_routed: bool) -> i32 {
    let context = connection.context;
    let socket = connection.socket.as_ptr();
    let mark = read!((*socket).mark);
    let interface = read!((*socket).bound_dev_if);
    if to_itself || pod.flags & F_OUT == 0 {
        // An earlier attempt of this socket may have marked and confined it.
        tag::release(connection.socket);
        if is_looped(mark) && !set_mark(context, unlooped(mark)) {
            count(Counter::OutboundRefused);
            return REFUSE;
        }
        return ALLOW;
    }
    if !is_routed {
        count(Counter::OutboundUnroutable);
        return REFUSE;
    }
    // Undoing SO_BINDTODEVICE takes a capability that the application may lack. It stays: the rule's
    // table has a route for the pod's interface; any other one would lead past the proxy.
    if interface > LOOPBACK_INTERFACE && interface != pod.interface {
        count(Counter::ForeignInterface);
        return REFUSE;
    }
    if !set_mark(context, looped(mark)) || !tag::confine(connection.socket, connection.netns_cookie) {
        count(Counter::OutboundRefused);
        return REFUSE;
    }
    count(Counter::OutboundCaptured);
    ALLOW
}

/// The proxy connects to the pod it works for.
#[inline(always)]
fn app_leg(connection: &Connection, source: Address, destination: Address) -> i32 {
    let context = connection.context;
    let mark = read!((*connection.socket.as_ptr()).mark);
    let client_address = !source.is_unspecified() && !source.is_loopback() && !source.same(&destination);
    if !client_address {
        return ALLOW;
    }
    let stays_inside = set_mark(context, looped(mark))
        && bind_to_interface(context, LOOPBACK_INTERFACE)
        && tag::confine(connection.socket, connection.netns_cookie);
    if !stays_inside {
        count(Counter::AppLegRefused);
        return REFUSE;
    }
    count(Counter::AppLeg);
    ALLOW
}
