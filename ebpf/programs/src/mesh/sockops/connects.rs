//! Fails closed: an application's connection that nobody has marked yet is marked here, and confined to `lo`.
//!
//! The programs at connect(2) have done both already. Here it is done again, because one of them may be missing for a while, and
//! for the subflows of MPTCP, which are sockets of their own. The socket is routed anew after its mark has changed. Linux 4.13.

use core::ptr::NonNull;

use aya_ebpf::bindings::bpf_sock;
use ebpf_common::{Counter, F_OUT, TAG_PROBER};

use super::{Event, probe};
use crate::{
    context::read,
    maps::{count, pod},
    socket::{is_looped, looped, set_mark},
    tag,
};

/// A socket is about to send its first packet.
#[inline(always)]
pub(super) fn begins(event: &Event, socket: NonNull<bpf_sock>) {
    let tag = tag::of(socket);
    if tag.flags & TAG_PROBER != 0 {
        probe::connects(event, tag);
    }
    if !tag::is_proxy(tag) {
        application(event, socket);
    }
}

#[inline(always)]
fn application(event: &Event, socket: NonNull<bpf_sock>) {
    let netns_cookie = event.netns_cookie();
    let Some(pod) = pod(netns_cookie) else { return };
    let destination = event.tuple().destination;
    if pod.flags & F_OUT == 0 || pod.owns(&destination) || destination.is_loopback() {
        return;
    }
    // First: without a mark a confined socket reaches nobody.
    if !tag::confine(socket, netns_cookie) {
        count(Counter::TagFailed);
    }
    let mark = read!((*socket.as_ptr()).mark);
    if !is_looped(mark) {
        count(if set_mark(event.as_ptr(), looped(mark)) {
            Counter::OutboundMarkedLate
        } else {
            Counter::OutboundRefused
        });
    }
}
