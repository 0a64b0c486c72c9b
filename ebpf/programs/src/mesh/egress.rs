//! Fails closed for connections between applications and the proxy: a packet of theirs that would leave by another interface than
//! `lo` is dropped. Everything else passes.
//!
//! Their packets are plaintext. The pod's rule and routes keep them on `lo`, and whoever is root in the pod or on the node can take
//! those away. Without them a packet would follow the pod's own routes onto the wire; it is dropped instead, TCP sends it
//! again, and the connection continues when the agent has repaired the routing. Connections that began before the pod was enrolled
//! are not confined and stay as they are.
//!
//! Hook: `cgroup_skb/egress`, Linux 4.10, after routing and once for each packet; socket storage in it, 5.2. The netns
//! cookie is not to be had here before 6.16, so the tag of the socket has it.

use core::ptr::NonNull;

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_sk_fullsock, macros::cgroup_skb, programs::SkBuffContext};
use ebpf_common::{Counter, LOOPBACK_INTERFACE};

use crate::{
    context::read,
    maps::{PODS, count},
    tag,
};

const PASS: i32 = 1;
/// The sender gets `EPERM`; TCP treats it as a loss.
const DROP: i32 = 0;

/// A packet is about to leave by the interface that routing has chosen.
#[cgroup_skb(egress)]
pub(crate) fn strake_egress(context: SkBuffContext) -> i32 {
    let skb = context.skb.skb;
    let interface = read!((*skb).ifindex);
    let socket = read!((*skb).__bindgen_anon_2.sk);
    if interface == LOOPBACK_INTERFACE {
        return PASS;
    }
    let Some(socket) = full(socket) else { return PASS };
    let confined_to = tag::of(socket).confined_to;
    // A pod that is no longer enrolled keeps nothing: the far end resets what is left of its proxied connections.
    if confined_to == 0 || PODS.get_ptr(confined_to).is_none() {
        return PASS;
    }
    count(Counter::EgressDropped);
    DROP
}

/// The socket, unless it is one of a handshake or of a connection that has ended, which send no payload.
#[inline(always)]
fn full(socket: *mut bpf_sock) -> Option<NonNull<bpf_sock>> {
    let socket = NonNull::new(socket)?;
    // SAFETY: the socket comes from the context and is not null.
    NonNull::new(unsafe { bpf_sk_fullsock(socket.as_ptr()) })
}
