//! Fails closed: a question whose nameserver cannot be remembered is refused.
//!
//! DNS questions of applications: sent to the proxy at the pod's own address, while the application keeps seeing the nameserver
//! that it has asked. The destination is rewritten, unlike that of other connections: a proxy's DNS sockets are not transparent,
//! and cannot answer from a nameserver's address. Used by the hooks that see addresses: `connect`, `sendmsg`, `recvmsg`,
//! `getpeername`.

use core::ptr::{NonNull, null_mut};

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_sk_storage_get};
use ebpf_common::{Address, Counter, DnsPeer, DnsRoute, LOOPBACK_INTERFACE, PodConfig};

use crate::{
    context::read,
    maps::{DNS_PEERS, count},
};

/// Makes the storage when the socket has none (`BPF_SK_STORAGE_GET_F_CREATE`).
const CREATE: u64 = 1;

/// Decision about what a socket sends.
pub(crate) enum Question {
    /// Not captured.
    No,
    /// To be sent to this address and to the pod's DNS port.
    Redirected(Address),
    /// Not to be sent.
    Refused,
}

/// Decides about a packet or connection to `destination` and `port`, and remembers the nameserver of one that is captured.
#[inline(always)]
pub(crate) fn question(socket: NonNull<bpf_sock>, pod: &PodConfig, destination: Address, port: u16) -> Question {
    let proxy = match DnsRoute::of(pod, &destination, port) {
        DnsRoute::Elsewhere => return Question::No,
        DnsRoute::Proxy(proxy) => proxy,
        DnsRoute::Nowhere => return refused(),
    };
    // Bound to another interface, it has no route to the pod's address: the kernel would take it for a neighbour there.
    let interface = read!((*socket.as_ptr()).bound_dev_if);
    if interface > LOOPBACK_INTERFACE && interface != pod.interface {
        return refused();
    }
    let Some(slot) = storage(socket, CREATE) else { return refused() };
    let peer = DnsPeer { nameserver: destination, proxy, proxy_port: pod.dns_port, pad: 0 };
    // SAFETY: the kernel gave the pointer to a value of this type.
    unsafe { *slot.as_ptr() = peer };
    count(Counter::DnsCaptured);
    Question::Redirected(proxy)
}

#[inline(always)]
fn refused() -> Question {
    count(Counter::DnsRefused);
    Question::Refused
}

/// Returns the nameserver in whose place the proxy answers from this address; `None`: it is not the proxy's.
// Asks neither for the pod nor its flags: what was asked is answered, also in a pod that is leaving.
#[inline(always)]
pub(crate) fn nameserver(socket: NonNull<bpf_sock>, peer: &Address, port: u16) -> Option<Address> {
    let slot = storage(socket, 0)?;
    // SAFETY: the kernel gave the pointer to a value of this type.
    let known = unsafe { *slot.as_ptr() };
    (port != 0 && port == known.proxy_port && peer.same(&known.proxy)).then_some(known.nameserver)
}

#[inline(always)]
fn storage(socket: NonNull<bpf_sock>, flags: u64) -> Option<NonNull<DnsPeer>> {
    // SAFETY: the map is a socket storage and the socket comes from the context.
    let peer = unsafe { bpf_sk_storage_get(DNS_PEERS.as_ptr(), socket.as_ptr().cast(), null_mut(), flags) };
    NonNull::new(peer.cast())
}
