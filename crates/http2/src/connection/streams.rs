//! Beginnings and ends of streams.

use super::closed::Absent;
use super::{Connection, Role};
use crate::frame::{FIRST_WINDOW_BYTES, kind, put_number};
use crate::{Cause, Fault, Flood, Line, Reason, State};
use std::cell::RefCell;
use std::rc::Rc;

/// Where a stream stands that a frame names.
pub(super) enum Found {
    Live(Line),
    Absent(Absent),
}

impl Connection {
    /// Cuts a stream.
    pub fn reset(&mut self, line: &Line, reason: Reason) {
        let mut stream = line.borrow_mut();
        if !stream.state.is_closed() {
            self.refuse(&mut stream, reason);
            self.kick();
        }
    }

    /// Nobody reads the stream any more. Its window is given back, as that of a socket whose reading side is shut down.
    pub fn leave(&mut self, line: &Line) {
        let mut stream = line.borrow_mut();
        stream.unread = true;
        while stream.take_arrived().is_some() {}
        // The peer may go on, and what it sends is thrown away: a sender of ours may wait for an end that comes behind it.
        let held = stream.held_bytes;
        self.give_back(&mut stream, held as usize);
        self.settle(&mut stream);
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

    pub(super) fn begin(&mut self, id: u32) -> Line {
        // A peer that has not seen our SETTINGS may believe in a larger window.
        let least = if self.peer.knows_us { 0 } else { FIRST_WINDOW_BYTES };
        let window = self.settings.stream_window_bytes.max(least);
        let line = Rc::new(RefCell::new(State::new(id, self.peer.window_bytes, window.into())));
        self.streams.insert(id, line.clone());
        line
    }

    /// The peer has sent all of a stream.
    pub(super) fn end(&mut self, stream: &mut State) {
        stream.state.recv_end_stream();
        stream.wake_receiver();
        self.settle(stream);
    }

    /// Removes a stream that is over. One whose sender has finished and whose receiver has gone is told to stop:
    /// a server has said all it wanted (section 8.1), a client does not want to know.
    pub(super) fn settle(&mut self, stream: &mut State) {
        if stream.state.is_closed() {
            self.remove(stream.id);
        } else if stream.unread && !stream.state.is_send_open() {
            let reason = if self.role == Role::Server { Reason::NoError } else { Reason::Cancel };
            self.refuse(stream, reason);
            self.kick();
        }
    }

    /// Cuts a stream and says so.
    pub(super) fn refuse(&mut self, stream: &mut State, reason: Reason) {
        self.put_reset(stream.id, reason);
        stream.cut(Cause::ResetByUs(reason));
        self.remove(stream.id);
    }

    /// Ends a stream because of what the peer does on it (section 5.4.2). Too many of these end the connection.
    pub(super) fn stream_error(&mut self, stream: &mut State, code: u32) -> Result<(), Fault> {
        self.refuse(stream, Reason::from(code));
        self.budgets.charge(Flood::Resets, 1)
    }

    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
        self.closed.insert_reset(id);
        put_number(&mut self.control, kind::RST_STREAM, id, reason.into());
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.streams.remove(&id);
        self.wake_waiting();
        if self.streams.is_empty() && (self.closing || self.peer.goes) {
            self.kick();
        }
    }

    pub(super) fn wake_waiting(&mut self) {
        for waker in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
    }
}
