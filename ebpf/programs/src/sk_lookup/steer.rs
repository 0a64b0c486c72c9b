//! Fails closed, unless a program of somebody else has selected a socket: hands a connection to a listener of the proxy, or
//! refuses it.
//!
//! Of several programs at one namespace the kernel runs all, in the order in which they were attached. The last selection counts,
//! and any selection counts for more than a refusal. So the selection of a program that ran before is replaced here; where there
//! is no listener it cannot be taken back, and [`Counter::LookupOverruled`] counts.

use aya_ebpf::{
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    programs::SkLookupContext,
};
use ebpf_common::{Counter, Family, Kind, SocketKey};

use crate::{
    context::read,
    maps::{SOCKS, count},
};

/// The listener that was assigned, else the ordinary lookup.
pub(crate) const PASS: u32 = 1;
/// Refused: for TCP a reset is sent.
pub(crate) const DROP: u32 = 0;

/// `BPF_SK_LOOKUP_F_NO_REUSEPORT`: this very listener. Without it an application that listened on
/// the proxy's port with `SO_REUSEPORT` before the proxy gets a share of the connections.
const NO_REUSEPORT: u64 = 2;
/// `BPF_SK_LOOKUP_F_REPLACE`: also when a program that ran before has selected another socket. Without it that one stays.
const REPLACE: u64 = 1;

enum Assigned {
    Yes,
    NoListener,
    Refused,
}

/// To the listener of this kind: of the packet's family, or one that takes both.
#[inline(always)]
pub(crate) fn steer(context: &SkLookupContext, netns_cookie: u64, kind: Kind, is_v4: bool) -> u32 {
    let selected_before = !read!((*context.lookup).__bindgen_anon_1.__bindgen_anon_1.sk).is_null();
    let mut outcome = Assigned::NoListener;
    if is_v4 {
        outcome = assign(context, SocketKey::new(netns_cookie, kind, Family::V4));
    }
    if !matches!(outcome, Assigned::Yes) {
        outcome = assign(context, SocketKey::new(netns_cookie, kind, Family::V6));
    }
    match outcome {
        Assigned::Yes => {
            count(match kind {
                Kind::Outbound => Counter::LookupOutbound,
                Kind::Inbound => Counter::LookupInbound,
                Kind::Hbone => Counter::LookupHbone,
                // Never steered to: who asks connects to its address.
                Kind::Dns => Counter::LookupInbound,
            });
            if selected_before {
                count(Counter::LookupReplaced);
            }
            PASS
        }
        Assigned::NoListener => {
            count(if selected_before { Counter::LookupOverruled } else { Counter::NoListener });
            DROP
        }
        Assigned::Refused => {
            count(if selected_before { Counter::LookupOverruled } else { Counter::AssignFailed });
            DROP
        }
    }
}

#[inline(always)]
fn assign(context: &SkLookupContext, key: SocketKey) -> Assigned {
    // SAFETY: the map is a socket hash with this key type.
    let socket = unsafe { bpf_map_lookup_elem(SOCKS.as_ptr(), (&raw const key).cast()) };
    if socket.is_null() {
        return Assigned::NoListener;
    }
    // SAFETY: the lookup gave a reference to a socket; the context is this program's own.
    let result = unsafe { bpf_sk_assign(context.lookup.cast(), socket, NO_REUSEPORT | REPLACE) };
    // SAFETY: the reference that the lookup took is given back once.
    unsafe { bpf_sk_release(socket) };
    if result == 0 { Assigned::Yes } else { Assigned::Refused }
}
