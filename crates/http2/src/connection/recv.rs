//! Frames of the peer: routes each to the part that it concerns, and turns a stream's error into a reset and the
//! connection's own into its end.

use super::Connection;
use crate::frame::{self, FrameHeader, Headers, flag, kind};
use crate::header_blocks::Message;
use crate::messages;
use crate::ping::Purpose;
use crate::reader::Event;
use crate::{Error, Flood, Reason, RecvError};

impl Connection {
    /// Processes what the reader has found.
    pub(crate) fn recv(&mut self, event: Event<'_>) -> Result<(), Error> {
        match event {
            Event::Frame(header, payload) => self.recv_frame(header, payload),
            Event::DataHeader(header) => {
                self.check_order(header)?;
                let result = self.data.recv_header(header, &mut self.streams, &mut self.out);
                self.conclude(result)
            }
            Event::DataPayload(data) => {
                self.data.recv_payload(data, &mut self.streams, &self.settings, &mut self.out);
                Ok(())
            }
            Event::DataEnd => {
                let Self { data, streams, settings, budgets, out, .. } = self;
                let result = data.recv_end(streams, settings, budgets, out);
                self.conclude(result)
            }
        }
    }

    fn recv_frame(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        self.check_order(header)?;
        match header.kind {
            kind::HEADERS => {
                let headers = Headers::parse(header, payload)?;
                let message = self.header_blocks.recv_headers(&headers, &mut self.budgets)?;
                self.recv_message(message)
            }
            kind::CONTINUATION => {
                let message = self.header_blocks.recv_continuation(header, payload, &mut self.budgets)?;
                self.recv_message(message)
            }
            kind::RST_STREAM => self.recv_reset(header, payload),
            kind::SETTINGS => self.recv_settings(header, payload),
            kind::PING => self.recv_ping(header, payload),
            kind::GOAWAY => self.recv_goaway(header, payload),
            kind::WINDOW_UPDATE => self.recv_window_update(header, payload),
            kind::PUSH_PROMISE => Err(Error::protocol("received PUSH_PROMISE, which is disabled")),
            kind::PRIORITY => self.recv_priority(header, payload),
            // Unknown types are ignored (section 5.5).
            _ => self.budgets.charge(Flood::IgnoredFrames, 1),
        }
    }

    /// Checks what may come first (section 3.4), and that nothing comes inside a header block (section 6.10).
    #[inline]
    fn check_order(&self, header: FrameHeader) -> Result<(), Error> {
        let is_settings = header.kind == kind::SETTINGS && !header.has(flag::ACK);
        if !self.settings.peer.is_received() && !is_settings {
            return Err(Error::protocol("received another frame before SETTINGS"));
        }
        if self.header_blocks.is_partial() && header.kind != kind::CONTINUATION {
            return Err(Error::protocol("received another frame inside a header block"));
        }
        Ok(())
    }

    /// Turns what became of a stream's frame into what becomes of the connection.
    #[inline]
    fn conclude(&mut self, result: Result<(), RecvError>) -> Result<(), Error> {
        match result {
            Ok(()) => Ok(()),
            Err(error) => self.recv_error(error),
        }
    }

    #[cold]
    fn recv_error(&mut self, error: RecvError) -> Result<(), Error> {
        match error {
            RecvError::Connection(error) => Err(error),
            RecvError::Ignored => self.budgets.charge(Flood::IgnoredFrames, 1),
            RecvError::Stream { stream_id, code } => {
                self.streams.reset_id(stream_id, Reason::from(code), &mut self.out);
                self.budgets.charge(Flood::Resets, 1)
            }
        }
    }

    #[inline]
    fn recv_message(&mut self, message: Option<Message>) -> Result<(), Error> {
        let Some(message) = message else { return Ok(()) };
        let result = messages::recv(&mut self.streams, message, &self.settings, &mut self.out);
        self.conclude(result)
    }

    fn recv_priority(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        self.budgets.charge(Flood::IgnoredFrames, 1)?;
        match frame::check_priority(header, payload) {
            // Only a stream that is open can be reset.
            Err(Error::Violation { code, .. }) if self.streams.store.get(header.stream_id).is_some() => {
                self.recv_error(RecvError::Stream { stream_id: header.stream_id, code })
            }
            checked => checked,
        }
    }

    fn recv_reset(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let reason = Reason::from(frame::parse_u32(payload)?);
        match self.streams.recv_reset(header.stream_id, reason, &mut self.out) {
            // A client decides itself how much it asks for; a server must not work for nothing without end.
            Ok(true) => self.budgets.charge(Flood::Resets, 1),
            Ok(false) => Ok(()),
            Err(error) => self.recv_error(error),
        }
    }

    fn recv_settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        if header.stream_id != 0 {
            return Err(Error::protocol("received SETTINGS on a stream"));
        }
        // Each one concerns all streams, and is answered: 100 in 10 s are far more than a peer needs.
        self.budgets.charge(Flood::Settings, 1)?;
        if header.has(flag::ACK) {
            self.settings.local.acked();
            let is_empty = payload.is_empty();
            return if is_empty { Ok(()) } else { Err(Error::frame_size("received SETTINGS with ACK and a payload")) };
        }
        let change = self.settings.peer.recv(self.role, frame::parse_settings(payload)?)?;
        if let Some(change) = change {
            self.streams.adjust_send_windows(change)?;
        }
        // At once and behind what was queued before: the peer counts on the order (section 6.5.3).
        self.out.send_settings_ack();
        // The peer may take more streams now.
        self.streams.wake_waiting();
        Ok(())
    }

    fn recv_ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        self.budgets.charge(Flood::Pings, 1)?;
        let payload = frame::parse_ping(header, payload)?;
        if !header.has(flag::ACK) {
            self.out.send_ping_ack(&payload);
            return Ok(());
        }
        match Purpose::of_ack(payload) {
            Some(Purpose::Keepalive) => {
                // What was sent before the PING has been read, resets too: they need not be remembered any longer.
                self.ping.acked();
                self.streams.store.ping_acked();
            }
            // The peer knows of the drain: requests from here on are not processed.
            Some(Purpose::Drain) if self.streams.store.goaway.is_draining() => {
                let last = self.streams.store.last_processed_id();
                self.streams.store.goaway.close(last);
                self.out.send_goaway(last, 0);
            }
            Some(Purpose::Drain | Purpose::Close) | None => {}
        }
        Ok(())
    }

    fn recv_goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        let last_stream_id = frame::parse_goaway(header, payload)?;
        // A drain takes two GOAWAYs; more have no effect.
        if self.streams.store.goaway.is_received() {
            self.budgets.charge(Flood::IgnoredFrames, 1)?;
        }
        self.streams.recv_goaway(last_stream_id)
    }

    fn recv_window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), Error> {
        // The reserved bit is ignored (section 6.9).
        let increment = frame::parse_u32(payload)? & frame::MAX_WINDOW_SIZE;
        self.budgets.charge(Flood::WindowUpdates, 1)?;
        let result = self.streams.recv_window_update(header.stream_id, increment);
        self.conclude(result)
    }
}
