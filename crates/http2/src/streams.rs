//! The streams of a connection (RFC 9113, section 5): the effect of frames and of users on them, and the DATA they send.
//! `messages` receives headers, `data_receiver` DATA; `connection` has what concerns the connection as a whole.

use crate::batch::Batch;
use crate::budget::Budgets;
use crate::closed_streams::Absent;
use crate::exchanged_settings::ExchangedSettings;
use crate::fields::{self, RequestHead};
use crate::flow_control::FlowControl;
use crate::frame::DEFAULT_INITIAL_WINDOW_SIZE;
use crate::hpack::Encoder;
use crate::outbox::Outbox;
use crate::pending_requests::PendingRequests;
use crate::scheduler::Scheduler;
use crate::store::{Found, Store};
use crate::waiters::Waiters;
use crate::{Cause, Error, Reason, RecvError, Role, Stream, StreamRef, code};
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::task::Context;

/// Payload that one stream sends before the next has its turn, bytes.
const TURN_BYTES: usize = 64 << 10;

/// All streams of a connection.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) role: Role,
    pub(crate) store: Store,
    /// Windows of the connection.
    flow: FlowControl,
    scheduler: Scheduler,
    pub(crate) requests: PendingRequests,
    waiting: Waiters,
    encoder: Encoder,
}

impl Streams {
    pub(crate) fn new(role: Role, settings: &ExchangedSettings) -> Self {
        Self {
            role,
            store: Store::new(role, settings.local.config.max_concurrent_streams),
            flow: FlowControl::new(DEFAULT_INITIAL_WINDOW_SIZE, settings.local.connection_window_size()),
            scheduler: Scheduler::default(),
            requests: PendingRequests::default(),
            waiting: Waiters::default(),
            encoder: Encoder::new(),
        }
    }

    /// Number of requests that nobody has taken yet.
    #[inline]
    pub(crate) fn pending_requests(&self) -> usize {
        self.requests.len()
    }

    /// Forgets a stream that is closed.
    fn remove(&mut self, id: u32, out: &mut Outbox) {
        // There may be room for another stream now, and a connection that is closing may have lost its last one.
        let can_close = self.store.remove(id);
        self.wake_waiting();
        if can_close {
            out.wake_driver();
        }
    }

    // Calls of users.

    /// Opens a stream with a CONNECT request (section 8.5). There must be room for it.
    #[inline]
    pub(crate) fn connect(
        &mut self,
        authority: &str,
        headers: &HeaderMap,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) -> StreamRef {
        let block = fields::connect(&mut self.encoder, authority, headers);
        let id = self.store.use_next_id();
        // In the same call as the identifier: HEADERS must go out in the order of identifiers (section 5.1.1).
        out.send_headers(id, &block, false, settings.peer.max_frame_size);
        self.store.insert(id, settings)
    }

    /// Takes the next request, if there is one that the peer has not reset.
    #[inline]
    pub(crate) fn next_request(
        &mut self,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) -> Option<(StreamRef, RequestHead)> {
        loop {
            let (stream, head) = self.requests.pop()?;
            // A client that gave up while its request waited gets no answer, and costs the server no work.
            if stream.borrow().abort_cause().is_none() {
                return Some((stream, head));
            }
            self.discard_data(&stream, settings, out);
            // There is room for other requests, which the driver may have left unread.
            out.wake_driver();
        }
    }

    /// Answers a request. With `end_stream` no content follows, and none is read.
    #[inline]
    pub(crate) fn send_response(
        &mut self,
        stream_ref: &StreamRef,
        status: StatusCode,
        headers: &HeaderMap,
        end_stream: bool,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) {
        let block = fields::response(&mut self.encoder, status, headers);
        let mut stream = stream_ref.borrow_mut();
        out.send_headers(stream.id, &block, end_stream, settings.peer.max_frame_size);
        stream.is_answered = true;
        if end_stream {
            stream.state.send_end_stream();
            drop(stream);
            self.discard_data(stream_ref, settings, out);
        }
    }

    /// Resets a stream, unless it is closed.
    pub(crate) fn reset(&mut self, stream: &StreamRef, reason: Reason, out: &mut Outbox) {
        let mut stream = stream.borrow_mut();
        if !stream.state.is_closed() {
            self.send_reset(&mut stream, reason, out);
        }
    }

    /// Resets the stream with `id`, or what would have become one.
    pub(crate) fn reset_id(&mut self, id: u32, reason: Reason, out: &mut Outbox) {
        match self.store.get(id) {
            Some(stream) => self.send_reset(&mut stream.borrow_mut(), reason, out),
            None => self.send_rst_stream(id, reason, out),
        }
    }

    fn send_reset(&mut self, stream: &mut Stream, reason: Reason, out: &mut Outbox) {
        self.send_rst_stream(stream.id, reason, out);
        stream.abort(Cause::ResetByUs(reason));
        self.remove(stream.id, out);
    }

    fn send_rst_stream(&mut self, id: u32, reason: Reason, out: &mut Outbox) {
        self.store.reset_sent(id);
        out.send_rst_stream(id, reason);
    }

    /// Discards what a stream receives from here on, as a socket does whose reading side is shut down: the peer may
    /// continue to send, because our sender may wait for an END_STREAM that comes behind its data.
    pub(crate) fn discard_data(&mut self, stream: &StreamRef, settings: &ExchangedSettings, out: &mut Outbox) {
        let mut stream = stream.borrow_mut();
        // DATA that comes later frees its room at once; see `data_receiver`.
        stream.recv.is_dropped = true;
        while stream.pop_data().is_some() {}
        let held = stream.recv.held_bytes;
        self.release_capacity(&mut stream, held as usize, settings, out);
        self.close_if_done(&mut stream, out);
    }

    /// Gives the peer room for `bytes` more on a stream and on the connection.
    #[inline]
    pub(crate) fn release_capacity(
        &mut self,
        stream: &mut Stream,
        bytes: usize,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) {
        // Never more than what is held: a caller's mistake must not widen the peer's window.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(stream.recv.held_bytes);
        stream.recv.held_bytes -= bytes;
        self.release_connection_capacity(bytes, out);
        // The peer sends nothing more on this stream, so it needs no WINDOW_UPDATE for it.
        if !stream.state.is_recv_open() {
            return;
        }
        stream.flow.release_capacity(bytes);
        // Half of the window at a time: few frames, and the peer never waits for one while the other half is on its
        // way.
        let half = (settings.local.config.stream_window_bytes / 2).cast_signed();
        if let Some(increment) = stream.flow.window_update(half) {
            out.send_window_update(stream.id, increment);
        }
    }

    /// Gives the peer room for `bytes` more on the connection.
    #[inline]
    pub(crate) fn release_connection_capacity(&mut self, bytes: u32, out: &mut Outbox) {
        self.flow.release_capacity(bytes);
        // As much as the peer has left: at half of the window, and sooner when streams that nobody reads hold much of
        // it.
        if let Some(increment) = self.flow.window_update(self.flow.recv_window()) {
            out.send_window_update(0, increment);
        }
    }

    /// Forgets a stream that is closed. A stream whose sender has finished and whose receiver is dropped is reset: a
    /// server has answered and wants no more of the request (section 8.1), a client wants no more of the response.
    #[inline]
    fn close_if_done(&mut self, stream: &mut Stream, out: &mut Outbox) {
        if stream.state.is_closed() {
            self.remove(stream.id, out);
        } else if stream.recv.is_dropped && !stream.state.is_send_open() {
            let reason = if self.role == Role::Server { Reason::NoError } else { Reason::Cancel };
            self.send_reset(stream, reason, out);
        }
    }

    // Frames of the peer.

    /// Counts DATA in the connection's window.
    #[inline]
    pub(crate) fn count_data(&mut self, length: u32) -> Result<(), Error> {
        let counted = self.flow.recv_data(length);
        counted.map_err(|_| Error::flow_control("received more DATA than the connection's window allows"))
    }

    /// Returns the stream that takes a DATA frame; `None` if it is closed and the peer may not know that.
    #[inline]
    pub(crate) fn stream_for_data(&self, id: u32, length: u32) -> Result<Option<StreamRef>, RecvError> {
        let stream_ref = match self.store.find(id) {
            Found::Open(stream) => stream,
            Found::Absent(Absent::Ignored) => return Ok(None),
            Found::Absent(Absent::Idle) => {
                return Err(Error::protocol("received DATA on a stream that is not open yet").into());
            }
            Found::Absent(Absent::Skipped) => {
                return Err(Error::protocol("received DATA on a stream below one that is used").into());
            }
            Found::Absent(Absent::Closed) => {
                return Err(Error::stream_closed("received DATA on a closed stream").into());
            }
        };
        let mut stream = stream_ref.borrow_mut();
        let counted = stream.flow.recv_data(length);
        let checked = if !stream.state.is_recv_open() {
            Err(code::STREAM_CLOSED)
        } else if self.role == Role::Client && !stream.is_answered {
            counted.and(Err(code::PROTOCOL_ERROR))
        } else {
            counted
        };
        if let Err(code) = checked {
            return Err(RecvError::Stream { stream_id: id, code });
        }
        stream.recv.held_bytes += length;
        drop(stream);
        Ok(Some(stream_ref))
    }

    /// Notes that the peer's direction has ended.
    pub(crate) fn recv_end_stream(&mut self, stream: &mut Stream, out: &mut Outbox) {
        stream.state.recv_end_stream();
        stream.recv.wake();
        self.close_if_done(stream, out);
    }

    /// Takes RST_STREAM (section 6.4). Returns whether a server has worked on the request for nothing.
    pub(crate) fn recv_reset(&mut self, id: u32, reason: Reason, out: &mut Outbox) -> Result<bool, RecvError> {
        match self.store.find(id) {
            Found::Open(stream) => {
                let mut stream = stream.borrow_mut();
                stream.abort(Cause::ResetByPeer(reason));
                self.remove(id, out);
                Ok(self.role == Role::Server && !stream.is_answered)
            }
            Found::Absent(absent) => Err(unexpected(absent, "received RST_STREAM on a stream that is not open yet")),
        }
    }

    /// Takes WINDOW_UPDATE (section 6.9).
    #[inline]
    pub(crate) fn recv_window_update(&mut self, id: u32, increment: u32) -> Result<(), RecvError> {
        if id == 0 {
            let what = "received WINDOW_UPDATE by 0 or beyond 2^31-1 for the connection";
            let updated = self.flow.recv_window_update(increment);
            return updated.map_err(|code| Error::Violation { what, code }.into());
        }
        match self.store.find(id) {
            Found::Open(stream) => {
                let updated = stream.borrow_mut().flow.recv_window_update(increment);
                updated.map_err(|code| RecvError::Stream { stream_id: id, code })?;
                self.schedule(&stream);
                Ok(())
            }
            Found::Absent(absent) => Err(unexpected(absent, "received WINDOW_UPDATE on a stream that is not open yet")),
        }
    }

    /// Changes the send windows of all streams (section 6.9.2).
    pub(crate) fn adjust_send_windows(&mut self, change: i32) -> Result<(), Error> {
        for stream in self.store.iter() {
            if stream.borrow_mut().flow.adjust_send_window(change).is_err() {
                return Err(Error::flow_control("received SETTINGS_INITIAL_WINDOW_SIZE that overflows a window"));
            }
            self.scheduler.schedule(stream);
        }
        Ok(())
    }

    /// Takes GOAWAY (section 6.8): a client's streams behind `last_stream_id` are not processed.
    pub(crate) fn recv_goaway(&mut self, last_stream_id: u32) -> Result<(), Error> {
        // A server's peer speaks of streams that the server opens, of which there are none.
        let last = if self.role == Role::Client { last_stream_id } else { 0 };
        self.store.goaway.recv(last)?;
        if self.role == Role::Client {
            // Safe to try again elsewhere: the peer says that it has not processed them.
            for stream in self.store.split_off(last + 1) {
                stream.borrow_mut().abort(Cause::Unprocessed);
            }
        }
        self.wake_waiting();
        Ok(())
    }

    /// Ends all streams with the connection.
    pub(crate) fn fail(&mut self, error: &Arc<Error>) {
        // Identifiers begin at 1, so these are all.
        for stream in self.store.split_off(0) {
            stream.borrow_mut().abort(Cause::ConnectionLost(error.clone()));
        }
        self.scheduler.clear();
        self.requests.clear();
        self.wake_waiting();
    }

    /// Registers `cx` to be woken when there may be room for another stream.
    pub(crate) fn watch_room(&mut self, cx: &Context<'_>) {
        self.waiting.watch(cx);
    }

    /// Wakes all tasks that wait to open a stream.
    pub(crate) fn wake_waiting(&mut self) {
        self.waiting.wake_all();
    }

    // DATA that we send.

    /// Puts a stream into the queue of those that send, if it has something to send.
    #[inline]
    pub(crate) fn schedule(&mut self, stream: &StreamRef) {
        self.scheduler.schedule(stream);
    }

    /// Returns whether a stream has something to send, or would have if the peer's windows let it.
    #[inline]
    pub(crate) fn has_scheduled(&self) -> bool {
        !self.scheduler.is_empty()
    }

    /// Moves DATA to `batch`, as far as it and the peer's windows go. Streams take turns of [`TURN_BYTES`].
    #[inline]
    pub(crate) fn fill(
        &mut self,
        batch: &mut Batch,
        settings: &ExchangedSettings,
        budgets: &mut Budgets,
        out: &mut Outbox,
    ) {
        while batch.room() > 0 {
            // One frame of one stream at a time, so that streams share the connection's window fairly.
            let Some(stream_ref) = self.scheduler.next(self.flow.send_capacity() > 0) else { break };
            let mut stream = stream_ref.borrow_mut();
            self.send_data(&mut stream, batch, settings, budgets);
            // The frame may have carried END_STREAM, the last that the stream waited for.
            self.close_if_done(&mut stream, out);
            drop(stream);
            self.scheduler.schedule(&stream_ref);
        }
        self.scheduler.trim();
    }

    /// Sends one DATA frame of a stream that has something to send.
    #[inline]
    fn send_data(
        &mut self,
        stream: &mut Stream,
        batch: &mut Batch,
        settings: &ExchangedSettings,
        budgets: &mut Budgets,
    ) {
        // Four limits: both windows, the peer's SETTINGS_MAX_FRAME_SIZE, a turn, and what the batch has room for.
        let windows = self.flow.send_capacity().min(stream.flow.send_capacity());
        let max_bytes = windows.min(settings.peer.max_frame_size).min(TURN_BYTES).min(batch.room());
        let sent = stream.send.pop_frame(stream.id, max_bytes, batch);
        self.flow.send_data(sent.length);
        stream.flow.send_data(sent.length);
        budgets.send_data(sent.length);
        if sent.end_stream {
            stream.state.send_end_stream();
        }
        // A writer is woken at half of the buffer: not for each frame, and before the buffer is empty.
        stream.send.wake_below(settings.local.config.send_buffer_bytes / 2);
    }

    /// Room in its buffers, bytes.
    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.scheduler.buffered_bytes() + self.requests.buffered_bytes() + self.waiting.buffered_bytes()
    }

    /// Bytes that the peer may send on all streams once it knows of all that was released.
    #[cfg(test)]
    pub(crate) fn free_window_bytes(&self) -> i64 {
        self.flow.free_bytes()
    }
}

/// Judges a frame that is allowed on closed streams, as it may have crossed what closed them, for a stream that is not
/// open. `what` says what is wrong if the stream was never open.
const fn unexpected(absent: Absent, what: &'static str) -> RecvError {
    match absent {
        Absent::Idle | Absent::Skipped => RecvError::Connection(Error::protocol(what)),
        Absent::Ignored | Absent::Closed => RecvError::Ignored,
    }
}
