//! Beginnings and ends of streams.

use super::{Connection, Role};
use crate::Reason;
use crate::http2::frame::{FIRST_WINDOW_BYTES, kind, put_number};
use crate::http2::stream::Finish;
use crate::http2::{Closed, Line, State};
use std::cell::RefCell;
use std::rc::Rc;

/// Where a stream stands that a frame names.
pub(super) enum Found {
    Live(Line),
    /// It was there.
    Gone,
    /// It has not begun.
    Idle,
}

impl Connection {
    /// Cuts a stream.
    pub(crate) fn reset(&mut self, line: &Line, reason: Reason) {
        let mut stream = line.borrow_mut();
        if stream.closed.is_none() && !stream.is_over() {
            self.refuse(&mut stream, reason);
            self.kick();
        }
    }

    /// Nobody reads the stream any more.
    pub(crate) fn leave(&mut self, line: &Line) {
        let mut stream = line.borrow_mut();
        stream.unread = true;
        while stream.take_arrived().is_some() {}
        let held = std::mem::take(&mut stream.held_bytes);
        self.give_back_shared(held);
        self.settle(&mut stream);
    }

    pub(super) fn find(&self, id: u32) -> Found {
        if let Some(line) = self.streams.get(&id) {
            return Found::Live(line.clone());
        }
        let was = match self.role {
            Role::Client => id % 2 == 1 && id < self.next,
            Role::Server => id % 2 == 1 && id <= self.last,
        };
        if was { Found::Gone } else { Found::Idle }
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
        stream.ended = true;
        stream.wake_receiver();
        self.settle(stream);
    }

    /// Removes a stream that is over. One whose sender has finished and whose receiver has gone is told to stop:
    /// a server has said all it wanted (section 8.1), a client does not want to know.
    pub(super) fn settle(&mut self, stream: &mut State) {
        if stream.is_over() {
            self.remove(stream.id);
        } else if stream.unread && stream.finish == Finish::Sent && stream.closed.is_none() {
            let reason = if self.role == Role::Server { Reason::NoError } else { Reason::Cancel };
            self.refuse(stream, reason);
            self.kick();
        }
    }

    /// Cuts a stream and says so.
    pub(super) fn refuse(&mut self, stream: &mut State, reason: Reason) {
        self.put_reset(stream.id, reason);
        stream.cut(Closed::ByUs(reason));
        self.remove(stream.id);
    }

    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
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
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }
}
