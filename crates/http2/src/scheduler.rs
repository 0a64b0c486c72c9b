//! Order of sending: streams with something to send take turns.

use crate::StreamRef;
use std::collections::VecDeque;

/// Number of streams for which room is kept while none has something to send.
const KEPT_STREAMS: usize = 8;

/// Streams with something to send, each of them once, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    queue: VecDeque<StreamRef>,
}

impl Scheduler {
    /// Appends a stream, if it has something to send and is not queued yet.
    #[inline]
    pub(crate) fn schedule(&mut self, stream_ref: &StreamRef) {
        let mut stream = stream_ref.borrow_mut();
        if !stream.send.is_scheduled && stream.is_sendable() {
            stream.send.is_scheduled = true;
            drop(stream);
            self.queue.push_back(stream_ref.clone());
        }
    }

    /// Removes the next stream that can send. Without capacity of the connection, only END_STREAM can be sent; streams
    /// that wait for capacity stay.
    #[inline]
    pub(crate) fn next(&mut self, has_capacity: bool) -> Option<StreamRef> {
        // Each stream at most once: when all of them wait for the connection's window, this ends.
        for _ in 0..self.queue.len() {
            let stream_ref = self.queue.pop_front()?;
            let mut stream = stream_ref.borrow_mut();
            // Its own window is used up, or it was reset. A WINDOW_UPDATE schedules it again.
            if !stream.is_sendable() {
                stream.send.is_scheduled = false;
            // Keeps its turn for the moment when the connection's window opens.
            } else if stream.queued_bytes() > 0 && !has_capacity {
                drop(stream);
                self.queue.push_back(stream_ref);
            } else {
                stream.send.is_scheduled = false;
                drop(stream);
                return Some(stream_ref);
            }
        }
        None
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives memory back that only a busy moment has needed.
    #[inline]
    pub(crate) fn trim(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > KEPT_STREAMS {
            self.queue = VecDeque::new();
        }
    }

    /// Removes all streams.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    /// Room in the queue, bytes.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<StreamRef>()
    }
}
