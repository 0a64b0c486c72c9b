//! Options of the socket that a hook runs for.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_setsockopt;
use ebpf_common::{LOOP_MARK, LOOP_MARK_MASK};

const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;
const SO_BINDTOIFINDEX: i32 = 62;

/// `IPPROTO_TCP`.
pub(crate) const TCP: u32 = 6;
/// `IPPROTO_UDP`.
pub(crate) const UDP: u32 = 17;
/// `IPPROTO_MPTCP`.
pub(crate) const MPTCP: u32 = 262;
/// `AF_INET`.
pub(crate) const AF_INET: u32 = 2;

/// Returns whether packets of a socket with this mark go to `lo`.
#[inline(always)]
pub(crate) const fn is_looped(mark: u32) -> bool {
    mark & LOOP_MARK_MASK == LOOP_MARK
}

/// The mark that sends packets to `lo`, with the application's other bits kept.
#[inline(always)]
pub(crate) const fn looped(mark: u32) -> u32 {
    unlooped(mark) | LOOP_MARK
}

/// The mark without the bits that steering owns.
#[inline(always)]
pub(crate) const fn unlooped(mark: u32) -> u32 {
    mark & !LOOP_MARK_MASK
}

/// Sets `SO_MARK` of the socket of this context; false when the kernel refuses. Needs Linux 5.8
/// in connect hooks.
#[inline(always)]
pub(crate) fn set_mark(context: *mut c_void, mark: u32) -> bool {
    set(context, SO_MARK, mark)
}

/// Sets `SO_BINDTOIFINDEX` of the socket of this context; false when the kernel refuses.
#[inline(always)]
pub(crate) fn bind_to_interface(context: *mut c_void, interface: u32) -> bool {
    set(context, SO_BINDTOIFINDEX, interface)
}

#[inline(always)]
fn set(context: *mut c_void, option: i32, mut value: u32) -> bool {
    // SAFETY: the context is this program's own, and the value lives on its stack with the size given.
    unsafe { bpf_setsockopt(context, SOL_SOCKET, option, (&raw mut value).cast(), size_of::<u32>() as i32) == 0 }
}
