//! Fails closed: a listener of the proxy is noted only when its mark and interface are right.

use core::ptr::NonNull;

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_sock_hash_update};
use aya_log_ebpf::{info, warn};
use ebpf_common::{Address, Counter, Family, Kind, LOOP_MARK_MASK, PodConfig, SocketKey, Tag};

use super::Event;
use crate::{
    context::{read, read_words},
    maps::{SOCKS, count, pod},
    socket::{AF_INET, bind_to_interface, set_mark, unlooped},
    tag,
};

/// A socket begins to listen. Those of the proxy are noted in `SOCKS`, the newest last.
#[inline(always)]
pub(super) fn begins(event: &Event, socket: NonNull<bpf_sock>) {
    let netns_cookie = event.netns_cookie();
    let Some(pod) = pod(netns_cookie) else { return };
    let tag = tag::of(socket);
    if !tag::is_proxy(tag) {
        return;
    }
    let port = read!((*event.ops()).local_port) as u16;
    let Some(kind) = kind_of(port, &pod) else { return };
    if kind as u32 == Kind::Dns as u32 && !is_at_pod(event, &pod) {
        return;
    }
    let family = if read!((*event.ops()).family) == AF_INET { Family::V4 } else { Family::V6 };
    let key = SocketKey::new(netns_cookie, kind, family);
    let noted = tag::put(socket, Tag::listener(kind, netns_cookie))
        && without_mark(event, socket)
        && on_pod_interface(event, kind, &pod)
        && note(event, key);
    if noted {
        count(Counter::ListenerNoted);
        info!(&event.context, "listener on port {} noted for netns {}", port, netns_cookie);
    } else {
        count(Counter::ListenerFailed);
        warn!(&event.context, "listener on port {} of netns {} cannot be used, the pod is closed", port, netns_cookie);
    }
}

/// Returns the kind of the proxy's listener on this port.
#[inline(always)]
fn kind_of(port: u16, pod: &PodConfig) -> Option<Kind> {
    if port == pod.out_port {
        Some(Kind::Outbound)
    } else if port == pod.in_port {
        Some(Kind::Inbound)
    } else if port == pod.hbone_port {
        Some(Kind::Hbone)
    } else if pod.is_dns_port(port) {
        Some(Kind::Dns)
    } else {
        None
    }
}

/// Returns whether the listener has the pod's address: questions are sent there. One that stayed on loopback gets none, and must
/// not be taken for one that does.
#[inline(always)]
fn is_at_pod(event: &Event, pod: &PodConfig) -> bool {
    let ops = event.ops();
    let (v4, v6) = (read!((*ops).local_ip4), read_words!((*ops).local_ip6));
    let address = if read!((*ops).family) == AF_INET { Address::from_v4(v4) } else { Address::from_v6(v6) };
    pod.owns(&address)
}

/// A listener's mark would pass to what it accepts, and `tcp_fwmark_accept` has effect only without
/// one: the resets of a marked listener leave through the pod's interface.
#[inline(always)]
fn without_mark(event: &Event, socket: NonNull<bpf_sock>) -> bool {
    let mark = read!((*socket.as_ptr()).mark);
    mark & LOOP_MARK_MASK == 0 || set_mark(event.as_ptr(), unlooped(mark))
}

/// Connections from outside are bound to the pod's interface from the first packet on: else one of
/// them and the application's end of another can have the same four addresses and ports.
#[inline(always)]
fn on_pod_interface(event: &Event, kind: Kind, pod: &PodConfig) -> bool {
    match kind {
        Kind::Outbound | Kind::Dns => true,
        Kind::Inbound | Kind::Hbone => bind_to_interface(event.as_ptr(), pod.interface),
    }
}

#[inline(always)]
fn note(event: &Event, mut key: SocketKey) -> bool {
    // SAFETY: the map is a socket hash with this key type, and the key lives on this program's stack.
    unsafe { bpf_sock_hash_update(event.ops(), SOCKS.as_ptr(), (&raw mut key).cast(), 0) == 0 }
}
