//! Which DATA goes out next, as far as the peer's windows go.

use super::Connection;
use crate::batch::Batch;
use crate::frame::{FrameHeader, flag, kind};
use crate::{Stream, StreamRef};
use std::collections::VecDeque;

/// Payload that one stream sends before the next has its turn, bytes.
const ROUND_BYTES: usize = 64 << 10;

/// Room for control frames that a connection keeps, bytes: some WINDOW_UPDATEs and a request.
const KEPT_BYTES: usize = 256;

/// Room for streams with something to send that a connection keeps.
const KEPT_STREAMS: usize = 8;

impl Connection {
    /// `stream` has got something to send.
    pub fn schedule(&mut self, line: &StreamRef) {
        schedule(&mut self.ready, line);
        self.wake_driver();
    }

    /// Whether there is something to send, or something that waits for the peer's windows.
    pub(crate) fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.ready.is_empty()
    }

    /// Moves what is to be sent to an empty `batch`, as far as it and the peer's windows go. Streams take turns.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        if !self.control.is_empty() {
            batch.control.append(&mut self.control);
            // A connection that waits keeps little of what its busiest moment needed.
            if self.control.capacity() > KEPT_BYTES {
                self.control = Vec::new();
            }
        }
        let mut blocked = 0;
        while batch.room() > 0 && blocked < self.ready.len() {
            let Some(line) = self.ready.pop_front() else { break };
            let mut stream = line.borrow_mut();
            if !stream.is_sendable() {
                stream.is_scheduled = false;
            } else if stream.out_bytes > 0 && self.send_window <= 0 {
                blocked += 1;
                drop(stream);
                self.ready.push_back(line);
            } else {
                blocked = 0;
                self.take_frame(&mut stream, batch);
                stream.is_scheduled = stream.is_sendable();
                let is_scheduled = stream.is_scheduled;
                self.close_if_done(&mut stream);
                drop(stream);
                if is_scheduled {
                    self.ready.push_back(line);
                }
            }
        }
        if self.ready.is_empty() && self.ready.capacity() > KEPT_STREAMS {
            self.ready = VecDeque::new();
        }
    }

    /// One DATA frame of a stream that has work.
    fn take_frame(&mut self, stream: &mut Stream, batch: &mut Batch) {
        let windows = usize::try_from(self.send_window.min(stream.send_window)).unwrap_or(0);
        let most = windows.min(self.peer.frame_bytes).min(ROUND_BYTES).min(batch.room());
        let (mut pieces, mut length) = (0, 0);
        for piece in stream.out.iter() {
            if length == most || pieces == batch.room_pieces() {
                break;
            }
            pieces += 1;
            length = most.min(length + piece.len());
        }
        let end = stream.is_end_stream_queued() && length == stream.out_bytes;
        let flags = if end { flag::END_STREAM } else { 0 };
        batch.head(FrameHeader { length, kind: kind::DATA, flags, stream: stream.id });
        let mut left = length;
        while left > 0 {
            let piece =
                if stream.out.first_len() > left { Some(stream.out.split_front(left)) } else { stream.out.pop_front() };
            let Some(piece) = piece else { break };
            left -= piece.len();
            batch.payload(piece);
        }
        stream.out_bytes -= length;
        // At most 2^16 at once.
        let charged = i64::try_from(length).unwrap_or(i64::MAX);
        self.send_window -= charged;
        stream.send_window -= charged;
        self.budgets.send_data(length);
        if end {
            stream.state.send_end_stream();
        }
        if stream.wants_room() && stream.out_bytes < self.settings.send_buffer_bytes / 2 {
            stream.wake_sender();
        }
    }
}

/// Lists a stream that has something to send.
pub(super) fn schedule(ready: &mut VecDeque<StreamRef>, line: &StreamRef) {
    let mut stream = line.borrow_mut();
    if !stream.is_scheduled && stream.is_sendable() {
        stream.is_scheduled = true;
        drop(stream);
        ready.push_back(line.clone());
    }
}
