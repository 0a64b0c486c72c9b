//! The address in the context of a hook that may rewrite it.

use core::ptr::NonNull;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use ebpf_common::Address;

use crate::context::read;

/// Lets the call continue, with the address as it is now.
pub(crate) const ALLOW: i32 = 1;
/// The call fails with `EPERM`.
pub(crate) const REFUSE: i32 = 0;

/// The port of the address, host order.
#[inline(always)]
pub(crate) fn port(sock_addr: *mut bpf_sock_addr) -> u16 {
    // 16 bits in network order, in the first bytes of the field.
    u16::from_be(read!((*sock_addr).user_port) as u16)
}

/// The socket of the call.
#[inline(always)]
pub(crate) fn socket(sock_addr: *mut bpf_sock_addr) -> Option<NonNull<bpf_sock>> {
    NonNull::new(read!((*sock_addr).__bindgen_anon_1.sk))
}

/// Replaces address and port (host order) in a hook of IPv4.
#[inline(always)]
pub(crate) fn rewrite4(sock_addr: *mut bpf_sock_addr, address: Address, port: u16) {
    // SAFETY: the place lies in the context of this program; the verifier checks that the hook may write there.
    unsafe { (&raw mut (*sock_addr).user_ip4).write_volatile(address.words_be[3]) };
    set_port(sock_addr, port);
}

/// Replaces address and port (host order) in a hook of IPv6, where IPv4 is mapped.
#[inline(always)]
pub(crate) fn rewrite6(sock_addr: *mut bpf_sock_addr, address: Address, port: u16) {
    let [first, second, third, fourth] = address.words_be;
    // SAFETY: the place lies in the context of this program; the verifier checks that the hook may write there.
    unsafe { (&raw mut (*sock_addr).user_ip6[0]).write_volatile(first) };
    // SAFETY: as above.
    unsafe { (&raw mut (*sock_addr).user_ip6[1]).write_volatile(second) };
    // SAFETY: as above.
    unsafe { (&raw mut (*sock_addr).user_ip6[2]).write_volatile(third) };
    // SAFETY: as above.
    unsafe { (&raw mut (*sock_addr).user_ip6[3]).write_volatile(fourth) };
    set_port(sock_addr, port);
}

#[inline(always)]
fn set_port(sock_addr: *mut bpf_sock_addr, port: u16) {
    // SAFETY: as in `rewrite4`. The field has 32 bits, of which the kernel reads the first 16.
    unsafe { (&raw mut (*sock_addr).user_port).write_volatile(u32::from(port.to_be())) };
}
