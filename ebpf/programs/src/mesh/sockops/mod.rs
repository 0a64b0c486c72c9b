//! Fails closed: a listener of the proxy that is not noted gets no connection.
//!
//! The life of TCP sockets, a callback per file: [`connects`], [`listen`], [`probe`] (a prober connects, its
//! socket closes), [`accepted`]. Hook: `sockops`; listen callback Linux 4.19, the netns cookie in it 5.15.

mod accepted;
mod connects;
mod listen;
mod probe;

use core::{ffi::c_void, ptr::NonNull};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock, bpf_sock_ops,
    },
    helpers::bpf_get_netns_cookie,
    macros::sock_ops,
    programs::SockOpsContext,
};
use ebpf_common::{Address, Tuple};

use crate::{
    context::{read, read_words},
    socket::AF_INET,
};

/// The only reply of this hook.
const DONE: u32 = 1;

/// A TCP socket changed.
#[sock_ops]
pub(crate) fn strake_sockops(context: SockOpsContext) -> u32 {
    let operation = read!((*context.ops).op);
    let event = Event { context, operation };
    let Some(socket) = event.socket_if_wanted() else { return DONE };
    match event.operation {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connects::begins(&event, socket),
        BPF_SOCK_OPS_STATE_CB => probe::closes(&event, socket),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listen::begins(&event, socket),
        _ => accepted::by_anybody(&event, socket),
    }
    DONE
}

/// Event of a socket.
struct Event {
    context: SockOpsContext,
    operation: u32,
}

impl Event {
    /// The socket, when this is one of the four callbacks of interest: everything else ends here.
    #[inline(always)]
    fn socket_if_wanted(&self) -> Option<NonNull<bpf_sock>> {
        let wanted = matches!(
            self.operation,
            BPF_SOCK_OPS_TCP_CONNECT_CB
                | BPF_SOCK_OPS_STATE_CB
                | BPF_SOCK_OPS_TCP_LISTEN_CB
                | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        );
        if wanted { NonNull::new(read!((*self.ops()).__bindgen_anon_2.sk)) } else { None }
    }

    #[inline(always)]
    fn ops(&self) -> *mut bpf_sock_ops {
        self.context.ops
    }

    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.context.as_ptr()
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the context is this program's own.
        unsafe { bpf_get_netns_cookie(self.as_ptr()) }
    }

    /// The connection as this socket sees it: itself is the source.
    #[inline(always)]
    fn tuple(&self) -> Tuple {
        let ops = self.ops();
        let family = read!((*ops).family);
        let (local_v4, remote_v4) = (read!((*ops).local_ip4), read!((*ops).remote_ip4));
        let local_v6 = Address::from_v6(read_words!((*ops).local_ip6));
        let remote_v6 = Address::from_v6(read_words!((*ops).remote_ip6));
        let source_port = read!((*ops).local_port) as u16;
        let destination_port = u32::from_be(read!((*ops).remote_port)) as u16;
        let (source, destination) = if family == AF_INET || remote_v6.is_v4() {
            (Address::from_v4(local_v4), Address::from_v4(remote_v4))
        } else {
            (local_v6, remote_v6)
        };
        Tuple { source, destination, source_port, destination_port }
    }
}
