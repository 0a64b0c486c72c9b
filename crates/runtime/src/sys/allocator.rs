//! Time that mimalloc keeps free memory. For programs whose global allocator it is (feature `mimalloc`).

use std::io;

use libc::{c_int, c_long, c_ulong};
// Links the library that has the functions below.
use libmimalloc_sys as _;

/// `mi_option_purge_delay` of mimalloc 3 (mimalloc.h).
const PURGE_DELAY: c_int = 15;
/// Time that free pages are kept before the kernel gets them back, milliseconds; 1000 by default. A busy
/// program uses them again sooner.
const PURGE_DELAY_MS: c_long = 10;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
    fn mi_option_get(option: c_int) -> c_long;
    fn mi_collect(force: bool);
}

/// Gives memory back to the kernel soon after it is free, and takes it in pages of 4 KiB and not of 2 MiB
/// (`PR_SET_THP_DISABLE`, Linux 3.15): a heap of many small objects then takes what they need. Call it before there is
/// much memory; programs that this one starts inherit the second part.
///
/// # Errors
/// Those of prctl(2), and `Unsupported` when this is another mimalloc, with other numbers for its options.
pub fn give_memory_back() -> io::Result<()> {
    // As wide as the kernel reads them.
    const ON: c_ulong = 1;
    const OFF: c_ulong = 0;
    // SAFETY: the function only reads a table of the library, for any number.
    let default = unsafe { mi_option_get(PURGE_DELAY) };
    if !(0..=10_000).contains(&default) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the option may be set at any time, from any thread.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
    // SAFETY: this request takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, ON, OFF, OFF, OFF) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Frees pages in which this thread uses nothing any more, and gives back to the kernel those that were freed longer ago
/// than the purge delay. Takes some ten nanoseconds for each page of the thread that is not full.
///
/// mimalloc does this only while a thread allocates: without it, one that has become idle keeps what its last burst of work
/// took.
pub fn collect_memory() {
    // SAFETY: the function may be called from any thread at any time; it touches what is free, and only of this thread.
    unsafe { mi_collect(false) }
}
