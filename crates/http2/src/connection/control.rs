//! What the peer says of streams and of the connection, DATA and header blocks apart.

use super::blocks::depends_on;
use super::closed::Absent;
use super::outgoing::schedule;
use super::{Connection, DRAINED, Found, KEEPALIVE, Role};
use crate::frame::{DEFAULT_MAX_FRAME_SIZE, FrameHeader, MAX_WINDOW_SIZE, encode, encode_goaway, flag, kind, setting};
use crate::reader::Event;
use crate::{Cause, Error, Flood, Reason, code};

impl Connection {
    pub(crate) fn recv(&mut self, event: Event<'_>) -> Result<(), Error> {
        match event {
            Event::Frame(head, payload) => self.recv_frame(head, payload),
            Event::DataHeader(head) => self.recv_data_header(head),
            Event::DataPayload(piece) => {
                self.recv_data(piece);
                Ok(())
            }
            Event::DataEnd => self.recv_data_end(),
        }
    }

    fn recv_frame(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let is_first_settings = head.kind == kind::SETTINGS && !head.has(flag::ACK);
        if !self.peer.known && !is_first_settings {
            return Err(Error::protocol("the peer does not begin with SETTINGS"));
        }
        if self.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Error::protocol("a frame cuts a header block"));
        }
        match head.kind {
            kind::HEADERS => self.recv_headers(head, payload),
            kind::CONTINUATION => self.recv_continuation(head, payload),
            kind::RST_STREAM => self.recv_reset(head, payload),
            kind::SETTINGS => self.recv_settings(head, payload),
            kind::PING => self.recv_ping(head, payload),
            kind::GOAWAY => self.recv_goaway(head, payload),
            kind::WINDOW_UPDATE => self.recv_window_update(head, payload),
            kind::PUSH_PROMISE => Err(Error::protocol("the peer pushes")),
            kind::PRIORITY => self.recv_priority(head, payload),
            // Types that are not known are ignored (section 5.5).
            _ => self.budgets.charge(Flood::IgnoredFrames, 1),
        }
    }

    /// Priorities have no effect here (section 5.3.2), but have a form (section 6.3).
    fn recv_priority(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        self.budgets.charge(Flood::IgnoredFrames, 1)?;
        if head.stream == 0 {
            return Err(Error::protocol("PRIORITY without a stream"));
        }
        let (what, code) = match payload.try_into() {
            Ok(priority) if depends_on(priority) != head.stream => return Ok(()),
            Ok(_) => ("a stream depends on itself", code::PROTOCOL_ERROR),
            Err(_) => ("PRIORITY of a wrong length", code::FRAME_SIZE_ERROR),
        };
        // Only a stream that is there can be reset.
        match self.find(head.stream) {
            Found::Live(line) => self.stream_error(&mut line.borrow_mut(), code),
            Found::Absent(_) => Err(Error::Violation { what, code }),
        }
    }

    fn recv_reset(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let code = number(payload)?;
        match self.find(head.stream) {
            Found::Live(line) => {
                let mut stream = line.borrow_mut();
                stream.abort(Cause::ResetByPeer(Reason::from(code)));
                self.remove(stream.id);
                // A server has worked for nothing. A client chooses itself how much it asks for.
                if self.role == Role::Server && !stream.is_answered {
                    self.budgets.charge(Flood::Resets, 1)?;
                }
                Ok(())
            }
            Found::Absent(absent) => self.without_effect(absent, "RST_STREAM for a stream that has not begun"),
        }
    }

    /// A frame that is allowed on closed streams, as it may have crossed what closed them, for a stream that is not there.
    fn without_effect(&mut self, absent: Absent, what: &'static str) -> Result<(), Error> {
        match absent {
            Absent::Idle | Absent::Skipped => Err(Error::protocol(what)),
            Absent::Ignored | Absent::Closed => self.budgets.charge(Flood::IgnoredFrames, 1),
        }
    }

    fn recv_settings(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let size = Error::frame_size("SETTINGS of a wrong length");
        if head.stream != 0 {
            return Err(Error::protocol("SETTINGS of a stream"));
        }
        self.budgets.charge(Flood::Settings, 1)?;
        if head.has(flag::ACK) {
            self.peer.has_our_settings = true;
            return if payload.is_empty() { Ok(()) } else { Err(size) };
        }
        let (parameters, []) = payload.as_chunks::<6>() else { return Err(size) };
        let mut streams = if self.peer.known { self.peer.streams } else { usize::MAX };
        let mut window = None;
        for [a, b, v @ ..] in parameters {
            let value = u32::from_be_bytes(*v);
            match u16::from_be_bytes([*a, *b]) {
                setting::MAX_CONCURRENT_STREAMS => streams = value as usize,
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW_SIZE => return Err(window_too_large()),
                setting::INITIAL_WINDOW_SIZE => window = Some(value),
                setting::MAX_FRAME_SIZE => {
                    if !(DEFAULT_MAX_FRAME_SIZE..1 << 24).contains(&(value as usize)) {
                        return Err(Error::protocol("SETTINGS_MAX_FRAME_SIZE is out of range"));
                    }
                    self.peer.frame_bytes = value as usize;
                }
                setting::ENABLE_PUSH if value > 1 => return Err(Error::protocol("SETTINGS_ENABLE_PUSH is no boolean")),
                setting::ENABLE_PUSH if value == 1 && self.role == Role::Client => {
                    return Err(Error::protocol("a server wants to be pushed to"));
                }
                // The rest limits what we do not do.
                _ => {}
            }
        }
        // Once, however often it is in the frame: it concerns every stream.
        if let Some(bytes) = window {
            self.apply_initial_window_size(bytes)?;
        }
        self.peer.streams = streams;
        self.peer.known = true;
        encode(&mut self.control, kind::SETTINGS, flag::ACK, 0, &[]);
        self.wake_waiting();
        Ok(())
    }

    /// Changes what streams may send by the difference (section 6.9.2).
    fn apply_initial_window_size(&mut self, bytes: u32) -> Result<(), Error> {
        let change = i64::from(bytes) - self.peer.window_bytes;
        self.peer.window_bytes = bytes.into();
        for line in self.streams.values() {
            let mut stream = line.borrow_mut();
            stream.send_window += change;
            if stream.send_window > i64::from(MAX_WINDOW_SIZE) {
                return Err(window_too_large());
            }
            drop(stream);
            schedule(&mut self.ready, line);
        }
        Ok(())
    }

    fn recv_ping(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        self.budgets.charge(Flood::Pings, 1)?;
        let payload: &[u8; 8] = payload.try_into().map_err(|_| Error::frame_size("PING of a wrong length"))?;
        if head.stream != 0 {
            return Err(Error::protocol("PING of a stream"));
        }
        if !head.has(flag::ACK) {
            encode(&mut self.control, kind::PING, flag::ACK, 0, payload);
        } else if *payload == KEEPALIVE {
            self.answered_ping = true;
            self.closed.recv_pong();
        } else if *payload == DRAINED && self.draining && !self.closing {
            self.closing = true;
            self.last_taken = self.last;
            encode_goaway(&mut self.control, self.last, 0);
        }
        Ok(())
    }

    fn recv_goaway(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let Some((last, _)) = payload.split_first_chunk::<4>().filter(|_| payload.len() >= 8) else {
            return Err(Error::frame_size("GOAWAY is too short"));
        };
        if head.stream != 0 {
            return Err(Error::protocol("GOAWAY of a stream"));
        }
        if self.peer.is_going_away {
            self.budgets.charge(Flood::IgnoredFrames, 1)?;
        }
        self.peer.is_going_away = true;
        if self.role == Role::Client {
            let last = u32::from_be_bytes(*last) & MAX_WINDOW_SIZE;
            if last > self.peer.last_processed {
                return Err(Error::protocol("GOAWAY takes back an earlier one"));
            }
            self.peer.last_processed = last;
            for line in self.streams.split_off(&(last + 1)).into_values() {
                line.borrow_mut().abort(Cause::Unprocessed);
            }
        }
        self.wake_waiting();
        Ok(())
    }

    fn recv_window_update(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let more = i64::from(number(payload)? & MAX_WINDOW_SIZE);
        self.budgets.charge(Flood::WindowUpdates, 1)?;
        let wrong = |window: i64| match more {
            0 => Some(code::PROTOCOL_ERROR),
            _ if window + more > i64::from(MAX_WINDOW_SIZE) => Some(code::FLOW_CONTROL_ERROR),
            _ => None,
        };
        if head.stream == 0 {
            if let Some(code) = wrong(self.send_window) {
                return Err(Error::Violation { what: "the connection's window cannot grow so", code });
            }
            self.send_window += more;
            return Ok(());
        }
        match self.find(head.stream) {
            Found::Live(line) => {
                let mut stream = line.borrow_mut();
                if let Some(code) = wrong(stream.send_window) {
                    return self.stream_error(&mut stream, code);
                }
                stream.send_window += more;
                drop(stream);
                schedule(&mut self.ready, &line);
                Ok(())
            }
            Found::Absent(absent) => self.without_effect(absent, "WINDOW_UPDATE of a stream that has not begun"),
        }
    }
}

const fn window_too_large() -> Error {
    Error::Violation { what: "a window is too large", code: code::FLOW_CONTROL_ERROR }
}

fn number(payload: &[u8]) -> Result<u32, Error> {
    let bytes = payload.try_into();
    let wrong = |_| Error::frame_size("a frame of a wrong length");
    Ok(u32::from_be_bytes(bytes.map_err(wrong)?))
}
