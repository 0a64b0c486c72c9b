//! Fails closed: tags the sockets of proxy and probers; an untagged one counts as an application's.
//!
//! Attached to the cgroup of the proxy or of a prober, so that the kernel says who belongs there,
//! sub-groups included. Hook: `cgroup/sock_create`, Linux 4.10; socket storage in it, 5.7.

use core::ptr::NonNull;

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use ebpf_common::{Counter, TAG_PROBER, TAG_PROXY, Tag};

use crate::{maps::count, tag};

/// Every verdict of this hook: the socket may be made.
const ALLOW: i32 = 1;

/// A socket of the proxy.
#[cgroup_sock(sock_create)]
pub(crate) fn strake_proxy(context: SockContext) -> i32 {
    tag_socket(&context, TAG_PROXY, Counter::ProxySocket)
}

/// A socket of a prober.
#[cgroup_sock(sock_create)]
pub(crate) fn strake_prober(context: SockContext) -> i32 {
    tag_socket(&context, TAG_PROBER, Counter::ProberSocket)
}

#[inline(always)]
fn tag_socket(context: &SockContext, flags: u32, counter: Counter) -> i32 {
    let tagged = match NonNull::new(context.sock) {
        Some(socket) => tag::put(socket, Tag { flags, ..Tag::default() }),
        None => false,
    };
    count(if tagged { counter } else { Counter::TagFailed });
    ALLOW
}
