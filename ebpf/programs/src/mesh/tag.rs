//! Whose a socket is: access to the map `TAGS`.

use core::ptr::{NonNull, null_mut};

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_sk_storage_get};
use ebpf_common::{TAG_PROXY, Tag};

use crate::maps::TAGS;

/// Makes the storage when the socket has none (`BPF_SK_STORAGE_GET_F_CREATE`).
const CREATE: u64 = 1;

/// The tag of a socket; all zero for an untagged one.
#[inline(always)]
pub(crate) fn of(socket: NonNull<bpf_sock>) -> Tag {
    match storage(socket, 0) {
        // SAFETY: the kernel gave the pointer to a value of this type.
        Some(tag) => unsafe { *tag.as_ptr() },
        None => Tag::default(),
    }
}

/// Tags a socket; false when there is no memory for it.
#[inline(always)]
pub(crate) fn put(socket: NonNull<bpf_sock>, tag: Tag) -> bool {
    let Some(slot) = storage(socket, CREATE) else { return false };
    // SAFETY: the kernel gave the pointer to a value of this type.
    unsafe { *slot.as_ptr() = tag };
    true
}

/// Confines a socket: its packets go by `lo` or are dropped. False when there is no memory for it.
#[inline(always)]
pub(crate) fn confine(socket: NonNull<bpf_sock>, netns_cookie: u64) -> bool {
    let Some(slot) = storage(socket, CREATE) else { return false };
    // SAFETY: the kernel gave the pointer to a value of this type, zeroed when it is new.
    unsafe { (*slot.as_ptr()).confined_to = netns_cookie };
    true
}

/// Ends what [`confine`] began, for a socket that connects anew.
#[inline(always)]
pub(crate) fn release(socket: NonNull<bpf_sock>) {
    if let Some(slot) = storage(socket, 0) {
        // SAFETY: the kernel gave the pointer to a value of this type.
        unsafe { (*slot.as_ptr()).confined_to = 0 };
    }
}

/// Returns whether the socket is the proxy's.
#[inline(always)]
pub(crate) fn is_proxy(tag: Tag) -> bool {
    tag.flags & TAG_PROXY != 0
}

#[inline(always)]
fn storage(socket: NonNull<bpf_sock>, flags: u64) -> Option<NonNull<Tag>> {
    // SAFETY: the map is a socket storage and the socket comes from the context.
    let tag = unsafe { bpf_sk_storage_get(TAGS.as_ptr(), socket.as_ptr().cast(), null_mut(), flags) };
    NonNull::new(tag.cast())
}
