//! The state of a connection. It routes frames to the part that they concern, and calls of users and of the driver to
//! the same parts. It neither reads nor writes; see `engine`.

use crate::batch::Batch;
use crate::budget::Budgets;
use crate::data_receiver::DataReceiver;
use crate::exchanged_settings::ExchangedSettings;
use crate::fields::RequestHead;
use crate::frame::{self, FrameHeader, Headers, flag, kind};
use crate::header_blocks::{HeaderBlocks, Message};
use crate::messages;
use crate::outbox::Outbox;
use crate::ping::{Ping, Purpose};
use crate::reader::Event;
use crate::streams::Streams;
use crate::{Error, Flood, Reason, RecvError, Settings, Stream, StreamRef};
use http::{HeaderMap, StatusCode};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// End of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    /// SETTINGS_MAX_HEADER_LIST_SIZE that this end announces, bytes.
    pub(crate) const fn header_list_bytes(self, settings: &Settings) -> u32 {
        match self {
            Self::Client => settings.client_header_list_bytes,
            Self::Server => settings.server_header_list_bytes,
        }
    }
}

/// The connection takes no more streams: an end has sent GOAWAY, or the connection is lost.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection takes no more streams")]
pub struct GoingAway;

/// A connection as its driver, its streams and its users share it.
pub type Shared = Rc<RefCell<Connection>>;

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    settings: ExchangedSettings,
    streams: Streams,
    header_blocks: HeaderBlocks,
    data: DataReceiver,
    ping: Ping,
    out: Outbox,
    budgets: Budgets,
    /// The byte stream is gone, or must not be used any more.
    is_lost: bool,
}

impl Connection {
    pub(crate) fn new(role: Role, config: &Settings) -> Self {
        let settings = ExchangedSettings::new(role, config);
        Self {
            role,
            streams: Streams::new(role, &settings),
            header_blocks: HeaderBlocks::new(role.header_list_bytes(config)),
            data: DataReceiver::default(),
            ping: Ping::default(),
            out: Outbox::new(settings.local.preface()),
            settings,
            budgets: Budgets::new(),
            is_lost: false,
        }
    }

    // Frames of the peer.

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

    // For the driver.

    /// Notes that the driver is being polled; what happens after the poll wakes `cx`.
    #[inline]
    pub(crate) fn begin_poll(&mut self, cx: &Context<'_>) {
        self.out.begin_poll(cx);
    }

    /// Notes that the driver has written what there was.
    #[inline]
    pub(crate) const fn end_poll(&mut self) {
        self.out.end_poll();
    }

    /// Returns whether nothing more is read until what has been read is dealt with: answers that the peer does not
    /// read, or requests that nobody takes.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        // A peer may reset a stream and open another before its request is taken, so there can be more requests than
        // streams.
        let max_requests = 2 * self.settings.local.config.max_concurrent_streams as usize;
        self.out.is_full() || self.streams.pending_requests() >= max_requests
    }

    /// Returns whether nobody needs the connection any more: it has no streams, and there will be none.
    pub(crate) fn is_finished(&self) -> bool {
        // Requests that were reset before they were taken have no stream any more.
        let is_unused = self.streams.store.is_empty() && self.streams.pending_requests() == 0;
        let goaway = &self.streams.store.goaway;
        is_unused && (goaway.is_closing() || self.role == Role::Client && goaway.is_received())
    }

    pub(crate) fn has_streams(&self) -> bool {
        !self.streams.store.is_empty()
    }

    /// Returns whether there is something to send, or something that waits for the peer's windows.
    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.streams.has_scheduled()
    }

    /// Moves what is to be sent to an empty `batch`, as far as it and the peer's windows go.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        self.out.drain_into(&mut batch.control);
        self.streams.fill(batch, &self.settings, &mut self.budgets, &mut self.out);
    }

    /// Sends a keepalive PING.
    pub(crate) fn send_ping(&mut self) {
        self.ping.sent();
        self.streams.store.ping_sent();
        self.out.send_ping(&Purpose::Keepalive.payload());
    }

    /// Returns whether the last keepalive PING is acknowledged.
    pub(crate) const fn is_ping_acked(&self) -> bool {
        self.ping.is_acked()
    }

    /// Sends the last GOAWAY before the byte stream is closed, with an error code.
    pub(crate) fn send_goaway(&mut self, code: u32) {
        self.out.send_goaway(self.streams.store.last_processed_id(), code);
    }

    /// Sends the last GOAWAY of a connection that is not needed any more, and a PING whose acknowledgement says that
    /// the peer has read everything.
    pub(crate) fn send_final_goaway(&mut self) {
        self.send_goaway(0);
        self.out.send_ping(&Purpose::Close.payload());
    }

    /// Bytes of DATA that the peer may have on its way.
    pub(crate) fn window_bytes(&self) -> usize {
        self.settings.local.connection_window_size() as usize
    }

    /// Ends all streams, as the connection is lost.
    pub(crate) fn fail(&mut self, error: &Arc<Error>) {
        self.is_lost = true;
        self.streams.fail(error);
    }

    // For users.

    /// Returns whether streams can be opened, now or later.
    pub fn is_usable(&self) -> bool {
        let goaway = &self.streams.store.goaway;
        !(self.is_lost || goaway.is_received() || goaway.is_closing()) && self.streams.store.has_ids()
    }

    /// Number of streams that the peer takes at once.
    pub const fn max_send_streams(&self) -> usize {
        self.settings.peer.max_concurrent_streams
    }

    /// Time that a request may wait until the peer takes another stream.
    pub const fn stream_wait(&self) -> Duration {
        self.settings.local.config.stream_wait
    }

    /// Returns whether a stream can be opened now.
    ///
    /// # Errors
    /// None can be opened any more.
    pub fn can_open(&self) -> Result<bool, GoingAway> {
        if self.is_usable() {
            Ok(self.streams.store.len() < self.settings.peer.max_concurrent_streams)
        } else {
            Err(GoingAway)
        }
    }

    /// Ready when a stream can be opened.
    ///
    /// # Errors
    /// None can be opened any more.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), GoingAway>> {
        if self.can_open()? {
            return Poll::Ready(Ok(()));
        }
        self.streams.watch_room(cx);
        Poll::Pending
    }

    /// Opens a stream with a CONNECT request (section 8.5). The connection must be [ready](Self::poll_ready).
    pub fn connect(&mut self, authority: &str, headers: &HeaderMap) -> StreamRef {
        self.streams.connect(authority, headers, &self.settings, &mut self.out)
    }

    /// Takes the next request, if there is one that the peer has not reset.
    #[inline]
    pub fn next_request(&mut self) -> Option<(StreamRef, RequestHead)> {
        self.streams.next_request(&self.settings, &mut self.out)
    }

    /// Answers a request. With `end_stream` no content follows, and none is read.
    pub fn send_response(&mut self, stream: &StreamRef, status: StatusCode, headers: &HeaderMap, end_stream: bool) {
        self.streams.send_response(stream, status, headers, end_stream, &self.settings, &mut self.out);
    }

    /// Sends what a stream has queued as soon as the peer's windows allow.
    #[inline]
    pub fn schedule(&mut self, stream: &StreamRef) {
        self.streams.schedule(stream);
        self.out.wake_driver();
    }

    /// Resets a stream, unless it is closed. What it has queued is thrown away.
    pub fn reset(&mut self, stream: &StreamRef, reason: Reason) {
        self.streams.reset(stream, reason, &mut self.out);
    }

    /// Throws away what a stream receives from here on.
    pub fn discard_data(&mut self, stream: &StreamRef) {
        self.streams.discard_data(stream, &self.settings, &mut self.out);
    }

    /// Gives the peer room for `bytes` more, once what was received is consumed.
    #[inline]
    pub fn release_capacity(&mut self, stream: &mut Stream, bytes: usize) {
        self.streams.release_capacity(stream, bytes, &self.settings, &mut self.out);
    }

    /// Number of bytes that a stream may keep queued.
    pub const fn send_buffer_bytes(&self) -> usize {
        self.settings.local.config.send_buffer_bytes
    }

    /// Begins to drain a server (section 6.8): a first GOAWAY asks the peer to open no more streams; a second one, after a
    /// round trip, names the last stream that is processed.
    pub fn drain(&mut self) {
        if self.streams.store.goaway.drain() {
            self.out.send_goaway(frame::MAX_STREAM_ID, 0);
            self.out.send_ping(&Purpose::Drain.payload());
        }
    }

    /// Opens no more streams of a client. The connection closes with the last of them.
    pub fn close(&mut self) {
        self.streams.store.goaway.close(frame::MAX_STREAM_ID);
        self.out.wake_driver();
    }

    /// Room in buffers of the connection, bytes.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.out.capacity() + self.streams.buffered_bytes()
    }

    /// Bytes that the peer may send on all streams once it knows of all that was released.
    #[cfg(test)]
    pub(crate) fn free_window_bytes(&self) -> i64 {
        self.streams.free_window_bytes()
    }
}
