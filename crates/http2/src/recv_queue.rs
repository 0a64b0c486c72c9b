//! Bytes that a stream has received and nobody has read yet.

use crate::outbox::watch;
use crate::pieces::Pieces;
use bytes::Bytes;
use std::task::{Context, Waker};

/// Pieces that may wait as they came. A peer can make them as small as a byte, and no window counts what each of them
/// costs beside its bytes: small ones behind these are joined.
const PIECES: usize = 64;
/// Length up to which they are joined, bytes.
const JOINED_BYTES: usize = 512;

/// Receiving side of a stream.
#[derive(Debug)]
pub(crate) struct RecvQueue {
    pieces: Pieces,
    /// Bytes that were received and whose capacity is not released, read or not; padding included.
    pub(crate) held_bytes: u32,
    /// Nobody reads any more: DATA is thrown away.
    pub(crate) is_dropped: bool,
    waker: Option<Waker>,
}

impl RecvQueue {
    pub(crate) const fn new() -> Self {
        Self { pieces: Pieces::new(), held_bytes: 0, is_dropped: false, waker: None }
    }

    /// Appends received bytes and wakes the reader.
    #[inline]
    pub(crate) fn push(&mut self, data: &[u8]) {
        // Behind 64 pieces, frames of a byte each share one allocation for up to 512 of them.
        let is_long = self.pieces.len() >= PIECES;
        match self.pieces.back_mut() {
            Some(last) if is_long && last.len() + data.len() <= JOINED_BYTES => *last = [last, data].concat().into(),
            _ => self.pieces.push_back(Bytes::copy_from_slice(data)),
        }
        self.wake();
    }

    /// Removes the next piece. Its capacity stays held.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.pieces.pop_front()
    }

    /// Wakes the reader.
    #[inline]
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Registers `cx` as the reader.
    pub(crate) fn watch(&mut self, cx: &Context<'_>) {
        watch(&mut self.waker, cx);
    }

    /// Returns whether the queue has no memory of its own.
    #[cfg(test)]
    pub(crate) const fn is_unallocated(&self) -> bool {
        self.pieces.is_unallocated()
    }
}
