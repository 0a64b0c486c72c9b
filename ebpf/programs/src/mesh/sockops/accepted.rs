//! Fails open: a connection that cannot be marked or bound here works, but for the collision that
//! the binding is to prevent; [`Counter::AcceptedFailed`] counts.
//!
//! Runs in softirq, where no process is current: what is known comes from the listener's tag.

use core::ptr::NonNull;

use aya_ebpf::bindings::bpf_sock;
use ebpf_common::{Counter, Kind, LOOPBACK_INTERFACE, PodConfig, Tuple};

use super::Event;
use crate::{
    context::read,
    maps::{ADMITTED, count, pod},
    socket::{bind_to_interface, is_looped, looped, set_mark},
    tag,
};

/// A connection was accepted in an enrolled pod, by the proxy or by an application.
#[inline(always)]
pub(super) fn by_anybody(event: &Event, socket: NonNull<bpf_sock>) {
    let netns_cookie = event.netns_cookie();
    let Some(pod) = pod(netns_cookie) else { return };
    let kind = tag::of(socket).kind;
    let mark = read!((*socket.as_ptr()).mark);
    let tuple = event.tuple();
    if tuple.source.same(&tuple.destination) || tuple.source.is_loopback() {
        return;
    }
    let right = if kind == Kind::Outbound as u32 {
        outbound(event, mark)
    } else if kind != 0 {
        // Inbound and tunnels: bound to the pod's interface like their listener.
        true
    } else if is_looped(mark) {
        // From the proxy, whose mark came with the packet: the answers belong on `lo`.
        let confined = tag::confine(socket, netns_cookie);
        bind_to_interface(event.as_ptr(), LOOPBACK_INTERFACE) && confined
    } else {
        admitted(event, &pod, &tuple)
    };
    if !right {
        count(Counter::AcceptedFailed);
    }
}

/// The proxy accepted an application's connection. Without the mark its answers leave through the
/// pod's interface. Bound to no interface, because the application's socket may be bound to either.
#[inline(always)]
fn outbound(event: &Event, mark: u32) -> bool {
    is_looped(mark) || set_mark(event.as_ptr(), looped(mark))
}

/// An application accepted a connection; an admitted one came through the pod's interface.
#[inline(always)]
fn admitted(event: &Event, pod: &PodConfig, tuple: &Tuple) -> bool {
    if ADMITTED.remove(tuple.reversed()).is_err() {
        return true;
    }
    count(Counter::AdmissionUsed);
    bind_to_interface(event.as_ptr(), pod.interface)
}
