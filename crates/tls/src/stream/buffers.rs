//! Buffers that all connections of a thread share. A connection has one only while bytes are in it,
//! so idle tunnels cost next to nothing, however much they have carried.

use std::cell::RefCell;

/// Length of an input buffer, bytes: the most that one read takes.
pub(super) const INPUT_BYTES: usize = 256 << 10;
/// Largest output buffer that is kept, bytes.
const OUTPUT_BYTES: usize = 512 << 10;
/// Number of buffers of each kind that a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static INPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a buffer of [`INPUT_BYTES`] with any content.
pub(super) fn input() -> Vec<u8> {
    INPUT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; INPUT_BYTES])
}

/// Returns an [`input`] buffer to the thread.
pub(super) fn recycle_input(buffer: Vec<u8>) {
    debug_assert_eq!(buffer.len(), INPUT_BYTES, "not an input buffer");
    INPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

/// Takes an empty buffer, with the room that its last user needed.
pub(super) fn output() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Returns an [`output`] buffer to the thread.
pub(super) fn recycle_output(mut buffer: Vec<u8>) {
    buffer.clear();
    OUTPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT && (1..=OUTPUT_BYTES).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    });
}
