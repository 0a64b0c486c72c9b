//! Bytes that a stream has to send and that wait for the peer's windows.

use crate::batch::Batch;
use crate::frame::{FrameHeader, flag, kind};
use crate::outbox::watch;
use crate::pieces::Pieces;
use bytes::Bytes;
use std::task::{Context, Waker};

/// Sending side of a stream.
#[derive(Debug)]
pub(crate) struct SendQueue {
    pieces: Pieces,
    /// Length of all pieces, bytes.
    bytes: usize,
    /// END_STREAM follows the last piece.
    is_end_stream_queued: bool,
    /// The stream is in the connection's queue of streams with something to send.
    pub(crate) is_scheduled: bool,
    /// The writer waits for room, and not only for the end of the stream.
    wants_capacity: bool,
    waker: Option<Waker>,
}

/// A DATA frame that was moved to a batch.
pub(crate) struct SentData {
    pub(crate) length: usize,
    pub(crate) end_stream: bool,
}

impl SendQueue {
    pub(crate) const fn new() -> Self {
        Self {
            pieces: Pieces::new(),
            bytes: 0,
            is_end_stream_queued: false,
            is_scheduled: false,
            wants_capacity: false,
            waker: None,
        }
    }

    /// Appends bytes to send.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes) {
        self.bytes += data.len();
        self.pieces.push_back(data);
    }

    /// Appends END_STREAM. No bytes may follow.
    pub(crate) const fn push_end_stream(&mut self) {
        self.is_end_stream_queued = true;
    }

    #[inline]
    pub(crate) const fn is_end_stream_queued(&self) -> bool {
        self.is_end_stream_queued
    }

    /// Number of queued bytes.
    #[inline]
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes all bytes and wakes the writer: the stream is closed.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
        self.wake();
    }

    /// Moves the next DATA frame to `batch`: at most `max_bytes` of payload, and END_STREAM with the last byte.
    #[inline]
    pub(crate) fn pop_frame(&mut self, stream_id: u32, max_bytes: usize, batch: &mut Batch) -> SentData {
        // A frame ends where the window, the peer's frame size or the room for pieces in the batch ends.
        let (mut pieces, mut length) = (0, 0);
        for piece in self.pieces.iter() {
            if length == max_bytes || pieces == batch.room_pieces() {
                break;
            }
            pieces += 1;
            length = max_bytes.min(length + piece.len());
        }
        // END_STREAM travels with the last byte: a frame of its own would cost a header and a record.
        let end_stream = self.is_end_stream_queued && length == self.bytes;
        let flags = if end_stream { flag::END_STREAM } else { 0 };
        batch.header(FrameHeader { length, kind: kind::DATA, flags, stream_id });
        let mut left = length;
        while left > 0 {
            // Only the last piece can be cut, where the frame or the window ends.
            let is_cut = self.pieces.first_len() > left;
            let piece = if is_cut { Some(self.pieces.split_front(left)) } else { self.pieces.pop_front() };
            let Some(piece) = piece else { break };
            left -= piece.len();
            batch.payload(piece);
        }
        self.bytes -= length;
        SentData { length, end_stream }
    }

    /// Wakes a writer that waits for room, if fewer than `bytes` are queued.
    #[inline]
    pub(crate) fn wake_below(&mut self, bytes: usize) {
        // A writer that only watches for a reset is not woken by room.
        if self.wants_capacity && self.bytes < bytes {
            self.wake();
        }
    }

    /// Registers `cx` to be woken when there is room, or the stream is closed.
    pub(crate) fn watch_capacity(&mut self, cx: &Context<'_>) {
        self.wants_capacity = true;
        self.watch_reset(cx);
    }

    /// Registers `cx` to be woken when the stream is closed.
    pub(crate) fn watch_reset(&mut self, cx: &Context<'_>) {
        watch(&mut self.waker, cx);
    }

    fn wake(&mut self) {
        self.wants_capacity = false;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Returns whether the queue has no memory of its own.
    #[cfg(test)]
    pub(crate) const fn is_unallocated(&self) -> bool {
        self.pieces.is_unallocated()
    }
}
