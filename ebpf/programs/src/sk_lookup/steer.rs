//! Fails closed: hands a connection to a listener of the proxy, or refuses it.

use aya_ebpf::{
    helpers::{bpf_map_lookup_elem, bpf_sk_assign, bpf_sk_release},
    programs::SkLookupContext,
};
use ebpf_common::{Counter, Family, Kind, SocketKey};

use crate::maps::{SOCKS, count};

/// The listener that was assigned, else the ordinary lookup.
pub(crate) const PASS: u32 = 1;
/// Refused: for TCP a reset is sent.
const DROP: u32 = 0;

/// `BPF_SK_LOOKUP_F_NO_REUSEPORT`: this very listener. Without it an application that listened on
/// the proxy's port with `SO_REUSEPORT` before the proxy gets a share of the connections.
const NO_REUSEPORT: u64 = 2;

enum Assigned {
    Yes,
    NoListener,
    Refused,
}

/// To the listener of this kind: of the packet's family, or one that takes both.
#[inline(always)]
pub(crate) fn steer(context: &SkLookupContext, netns_cookie: u64, kind: Kind, is_v4: bool) -> u32 {
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
            });
            PASS
        }
        Assigned::NoListener => {
            count(Counter::NoListener);
            DROP
        }
        Assigned::Refused => {
            count(Counter::AssignFailed);
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
    let result = unsafe { bpf_sk_assign(context.lookup.cast(), socket, NO_REUSEPORT) };
    // SAFETY: the reference that the lookup took is given back once.
    unsafe { bpf_sk_release(socket) };
    if result == 0 { Assigned::Yes } else { Assigned::Refused }
}
