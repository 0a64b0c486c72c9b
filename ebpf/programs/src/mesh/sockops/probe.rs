//! Fails closed: a prober's connection that cannot be noted goes to the proxy like any other, and so does one from a
//! network namespace that is not the node's, whatever cgroup its process is in.

use core::ptr::NonNull;

use aya_ebpf::{
    Global,
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock},
    helpers::bpf_ktime_get_ns,
};
use ebpf_common::{Admission, Counter, TAG_PROBER, Tag};

use super::Event;
use crate::{
    context::read,
    maps::{ADMITTED, count},
    tag,
};

/// Overwrites an entry that is there (`BPF_ANY`).
const ANY: u64 = 0;

/// The node's own network namespace; set by the loader. Zero is no namespace's.
#[unsafe(no_mangle)]
static HOST_NETNS_COOKIE: Global<u64> = Global::new(0);

/// A prober's socket sends its first packet; its address and port are settled now.
#[inline(always)]
pub(super) fn connects(event: &Event, tag: Tag) {
    let netns_cookie = event.netns_cookie();
    if netns_cookie != HOST_NETNS_COOKIE.load() {
        count(Counter::ProbeForeign);
        return;
    }
    // SAFETY: the helper has no precondition.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    let admission = Admission { since_ns, netns_cookie, reason: tag.flags, pad: 0 };
    let told_of_close = event.context.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_ok();
    let noted = told_of_close && ADMITTED.insert(event.tuple(), admission, ANY).is_ok();
    count(if noted { Counter::ProbeAdmitted } else { Counter::ProbeFailed });
}

/// A socket changes its state: when it closes, its admission ends.
#[inline(always)]
pub(super) fn closes(event: &Event, socket: NonNull<bpf_sock>) {
    let new_state = read!((*event.ops()).__bindgen_anon_1.args[1]);
    if new_state == BPF_TCP_CLOSE && tag::of(socket).flags & TAG_PROBER != 0 {
        // It is gone already when the application has accepted the connection.
        let _ = ADMITTED.remove(event.tuple());
    }
}
