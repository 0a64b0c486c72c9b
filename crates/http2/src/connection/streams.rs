//! Beginnings and ends of streams.

use super::closed::Absent;
use super::{Connection, Role};
use crate::frame::{DEFAULT_INITIAL_WINDOW_SIZE, encode_u32, kind};
use crate::{Cause, Error, Flood, Reason, Stream, StreamRef};
use std::cell::RefCell;
use std::rc::Rc;

/// Where a stream stands that a frame names.
pub(super) enum Found {
    Live(StreamRef),
    Absent(Absent),
}

impl Connection {
    /// Cuts a stream.
    pub fn reset(&mut self, line: &StreamRef, reason: Reason) {
        let mut stream = line.borrow_mut();
        if !stream.state.is_closed() {
            self.send_reset(&mut stream, reason);
            self.wake_driver();
        }
    }

    /// Nobody reads the stream any more. Its window is given back, as that of a socket whose reading side is shut down.
    pub fn discard_data(&mut self, line: &StreamRef) {
        let mut stream = line.borrow_mut();
        stream.is_recv_dropped = true;
        while stream.pop_data().is_some() {}
        // The peer may go on, and what it sends is thrown away: a sender of ours may wait for an end that comes behind it.
        let held = stream.held_bytes;
        self.release_capacity(&mut stream, held as usize);
        self.close_if_done(&mut stream);
    }

    pub(super) fn find(&self, id: u32) -> Found {
        if let Some(line) = self.streams.get(&id) {
            return Found::Live(line.clone());
        }
        let used = match self.role {
            Role::Client => id % 2 == 1 && id < self.next,
            Role::Server => id % 2 == 1 && id <= self.last,
        };
        Found::Absent(if !used {
            Absent::Idle
        } else if self.role == Role::Server && self.closing && id > self.last_taken {
            Absent::Ignored
        } else {
            self.closed.find(id)
        })
    }

    pub(super) fn insert(&mut self, id: u32) -> StreamRef {
        // A peer that has not seen our SETTINGS may believe in a larger window.
        let least = if self.peer.has_our_settings { 0 } else { DEFAULT_INITIAL_WINDOW_SIZE };
        let window = self.settings.stream_window_bytes.max(least);
        let line = Rc::new(RefCell::new(Stream::new(id, self.peer.window_bytes, window.into())));
        self.streams.insert(id, line.clone());
        line
    }

    /// The peer has sent all of a stream.
    pub(super) fn recv_end_stream(&mut self, stream: &mut Stream) {
        stream.state.recv_end_stream();
        stream.wake_receiver();
        self.close_if_done(stream);
    }

    /// Removes a stream that is over. One whose sender has finished and whose receiver has gone is told to stop:
    /// a server has said all it wanted (section 8.1), a client does not want to know.
    pub(super) fn close_if_done(&mut self, stream: &mut Stream) {
        if stream.state.is_closed() {
            self.remove(stream.id);
        } else if stream.is_recv_dropped && !stream.state.is_send_open() {
            let reason = if self.role == Role::Server { Reason::NoError } else { Reason::Cancel };
            self.send_reset(stream, reason);
            self.wake_driver();
        }
    }

    /// Cuts a stream and says so.
    pub(super) fn send_reset(&mut self, stream: &mut Stream, reason: Reason) {
        self.encode_reset(stream.id, reason);
        stream.abort(Cause::ResetByUs(reason));
        self.remove(stream.id);
    }

    /// Ends a stream because of what the peer does on it (section 5.4.2). Too many of these end the connection.
    pub(super) fn stream_error(&mut self, stream: &mut Stream, code: u32) -> Result<(), Error> {
        self.send_reset(stream, Reason::from(code));
        self.budgets.charge(Flood::Resets, 1)
    }

    pub(super) fn encode_reset(&mut self, id: u32, reason: Reason) {
        self.closed.insert_reset(id);
        encode_u32(&mut self.control, kind::RST_STREAM, id, reason.into());
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.streams.remove(&id);
        self.wake_waiting();
        if self.streams.is_empty() && (self.closing || self.peer.is_going_away) {
            self.wake_driver();
        }
    }

    pub(super) fn wake_waiting(&mut self) {
        for waker in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
    }
}
