//! Buffers that all connections of a thread share. A connection has one while bytes are in it,
//! so tunnels that wait cost next to nothing, however much they have carried.

use std::cell::RefCell;

/// Length of an input buffer, bytes: what one read takes at most.
pub(super) const INPUT_BYTES: usize = 256 << 10;
/// Largest output buffer that is kept, bytes.
const OUTPUT_BYTES: usize = 512 << 10;
/// Buffers of each kind that a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static INPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`INPUT_BYTES`] with anything in it.
pub(super) fn input() -> Vec<u8> {
    INPUT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; INPUT_BYTES])
}

/// Gives an [`input`] buffer back.
pub(super) fn give_input(buffer: Vec<u8>) {
    debug_assert_eq!(buffer.len(), INPUT_BYTES, "not an input buffer");
    INPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

/// An empty buffer, with the room that its last user needed.
pub(super) fn output() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an [`output`] buffer back.
pub(super) fn give_output(mut buffer: Vec<u8>) {
    buffer.clear();
    OUTPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT && (1..=OUTPUT_BYTES).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    });
}
