//! The one call into mimalloc that has no safe wrapper elsewhere; see `memory`.

// Links the library that has the function below.
use libmimalloc_sys as _;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Frees pages in which this thread uses nothing any more, and gives back to the kernel those that were freed longer ago
/// than the purge delay. Takes some ten nanoseconds for each page of the thread that is not full.
pub fn collect_memory() {
    // SAFETY: the function may be called from any thread at any time; it touches what is free, and only of this thread.
    unsafe { mi_collect(false) }
}
