//! The state of a connection. It routes the calls of users and of the driver to the part that they concern; the peer's
//! frames come to the same parts in `recv`. It neither reads nor writes; see `engine`.

mod recv;

use crate::batch::Batch;
use crate::budget::Budgets;
use crate::data_receiver::DataReceiver;
use crate::exchanged_settings::ExchangedSettings;
use crate::fields::RequestHead;
use crate::frame;
use crate::header_blocks::HeaderBlocks;
use crate::outbox::Outbox;
use crate::ping::{Ping, Purpose};
use crate::streams::Streams;
use crate::{Error, Reason, Settings, Stream, StreamRef};
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
