//! The streams of a connection (RFC 9113, section 5): the effect of frames and of users on them, and their DATA. What
//! concerns the connection as a whole is in `connection`.

use crate::batch::Batch;
use crate::budget::Budgets;
use crate::closed_streams::Absent;
use crate::content::Content;
use crate::exchanged_settings::ExchangedSettings;
use crate::fields::{self, Fields, RequestHead};
use crate::flow_control::FlowControl;
use crate::frame::{DEFAULT_INITIAL_WINDOW_SIZE, FrameHeader, flag};
use crate::header_blocks::Message;
use crate::hpack::Encoder;
use crate::outbox::Outbox;
use crate::scheduler::Scheduler;
use crate::store::{Found, Store};
use crate::{Cause, Error, Flood, Reason, RecvError, Role, Stream, StreamRef, code};
use http::{HeaderMap, Method, StatusCode};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Payload that one stream sends before the next has its turn, bytes.
const TURN_BYTES: usize = 64 << 10;
/// Number of requests for which room is kept while there are none. A burst needs more.
const KEPT_REQUESTS: usize = 4;

/// A DATA frame that is being received.
#[derive(Debug)]
struct IncomingData {
    /// `None` if its payload is thrown away.
    stream: Option<StreamRef>,
    end_stream: bool,
    /// No payload has come so far.
    is_empty: bool,
    /// Length of the frame that has not been seen as payload, bytes. At its end, that is padding.
    left: u32,
}

/// All streams of a connection.
#[derive(Debug)]
pub(crate) struct Streams {
    role: Role,
    pub(crate) store: Store,
    /// Windows of the connection.
    flow: FlowControl,
    incoming: Option<IncomingData>,
    scheduler: Scheduler,
    /// Requests that nobody has taken yet.
    requests: VecDeque<(StreamRef, RequestHead)>,
    /// Tasks that wait until they may open a stream.
    waiting: Vec<Waker>,
    encoder: Encoder,
}

impl Streams {
    pub(crate) fn new(role: Role, settings: &ExchangedSettings) -> Self {
        Self {
            role,
            store: Store::new(role, settings.local.config.max_concurrent_streams),
            flow: FlowControl::new(DEFAULT_INITIAL_WINDOW_SIZE, settings.local.connection_window_size()),
            incoming: None,
            scheduler: Scheduler::default(),
            requests: VecDeque::new(),
            waiting: Vec::new(),
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
            let next = self.requests.pop_front();
            if self.requests.is_empty() && self.requests.capacity() > KEPT_REQUESTS {
                self.requests = VecDeque::new();
            }
            let (stream, head) = next?;
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

    /// Throws away what a stream receives from here on, as a socket does whose reading side is shut down: the peer may
    /// go on, as a sender of ours may wait for an end that comes behind what it sends.
    pub(crate) fn discard_data(&mut self, stream: &StreamRef, settings: &ExchangedSettings, out: &mut Outbox) {
        let mut stream = stream.borrow_mut();
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

    #[inline]
    fn release_connection_capacity(&mut self, bytes: u32, out: &mut Outbox) {
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

    /// Takes a request, a response or trailers (section 8.1).
    #[inline]
    pub(crate) fn recv_message(
        &mut self,
        message: Message,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        let id = message.stream_id;
        match self.store.find(id) {
            Found::Open(stream) => self.recv_stream_headers(&stream, message, out),
            Found::Absent(Absent::Idle) if self.role == Role::Server && id % 2 == 1 => {
                self.recv_request(message, settings, out)
            }
            Found::Absent(Absent::Idle) => {
                Err(Error::protocol("received HEADERS on a stream that the peer cannot open").into())
            }
            Found::Absent(Absent::Skipped) => {
                Err(Error::protocol("received HEADERS on a stream below one that is used").into())
            }
            Found::Absent(Absent::Ignored) => Err(RecvError::Ignored),
            Found::Absent(Absent::Closed) => Err(Error::stream_closed("received HEADERS on a closed stream").into()),
        }
    }

    #[inline]
    fn recv_request(
        &mut self,
        message: Message,
        settings: &ExchangedSettings,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        let Message { stream_id: id, end_stream, fields } = message;
        self.store.recv_id(id);
        if self.store.goaway.is_closing() {
            // The peer knows which stream was the last.
            return Ok(());
        }
        // REFUSED_STREAM says that nothing was processed: the peer may try again (section 8.7).
        if self.store.len() >= settings.local.config.max_concurrent_streams as usize {
            return Err(RecvError::Stream { stream_id: id, code: Reason::Refused.into() });
        }
        // The list was decoded in full, so the dynamic table is right and the connection can go on.
        if fields.is_too_long {
            let stream = self.store.insert(id, settings);
            if end_stream {
                stream.borrow_mut().state.recv_end_stream();
            }
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            self.send_response(&stream, status, &HeaderMap::new(), true, settings, out);
            return Ok(());
        }
        let Some(head) = fields.into_request(end_stream) else {
            return Err(RecvError::Stream { stream_id: id, code: code::PROTOCOL_ERROR });
        };
        let stream_ref = self.store.insert(id, settings);
        let mut stream = stream_ref.borrow_mut();
        // A tunnel carries nothing but DATA from here on (section 8.5), and no length limits it.
        stream.is_tunnel = head.method == Method::CONNECT;
        stream.content = Content::of_length(head.content_length);
        if end_stream {
            stream.state.recv_end_stream();
        }
        drop(stream);
        self.requests.push_back((stream_ref, head));
        Ok(())
    }

    /// Takes HEADERS of an open stream: the response to a client, or trailers.
    #[inline]
    fn recv_stream_headers(&mut self, stream: &StreamRef, message: Message, out: &mut Outbox) -> Result<(), RecvError> {
        let stream = &mut *stream.borrow_mut();
        let Message { stream_id, end_stream, fields } = message;
        if !stream.state.is_recv_open() {
            return Err(RecvError::Stream { stream_id, code: code::STREAM_CLOSED });
        }
        if self.role == Role::Client && !stream.is_answered {
            return self.recv_response(stream, end_stream, fields, out);
        }
        // A tunnel carries nothing but DATA (section 8.5). Elsewhere these are trailers, and the end (section 8.1).
        let is_well_formed =
            end_stream && !fields.is_too_long && fields.is_trailers() && !stream.content.is_wrong(true);
        if stream.is_tunnel || !is_well_formed {
            return Err(RecvError::Stream { stream_id, code: code::PROTOCOL_ERROR });
        }
        self.recv_end_stream(stream, out);
        Ok(())
    }

    #[inline]
    fn recv_response(
        &mut self,
        stream: &mut Stream,
        end_stream: bool,
        fields: Fields,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        let is_too_long = fields.is_too_long;
        match fields.into_response(end_stream) {
            // Interim responses say nothing about a tunnel (RFC 9110, section 15.2).
            Some(head) if head.status.is_informational() => {}
            Some(head) if !is_too_long => {
                stream.is_tunnel = head.status.is_success();
                stream.content = Content::of_length(head.content_length);
                stream.response = Some(Box::new(head));
                stream.is_answered = true;
                if end_stream {
                    self.recv_end_stream(stream, out);
                }
                stream.recv.wake();
            }
            _ => return Err(RecvError::Stream { stream_id: stream.id, code: code::PROTOCOL_ERROR }),
        }
        Ok(())
    }

    /// Begins a DATA frame (section 6.1). Its whole length counts at once, as the peer has counted it.
    #[inline]
    pub(crate) fn recv_data_header(&mut self, header: FrameHeader, out: &mut Outbox) -> Result<(), RecvError> {
        // Below 2^24.
        let length = u32::try_from(header.length).unwrap_or(u32::MAX);
        // The connection's window counts all DATA, also that of streams that are closed (section 6.9).
        if self.flow.recv_data(length).is_err() {
            return Err(Error::flow_control("received more DATA than the connection's window allows").into());
        }
        let (stream, result) = match self.stream_for_data(header.stream_id, length) {
            Ok(stream) => (stream, Ok(())),
            Err(RecvError::Connection(error)) => return Err(error.into()),
            // The payload of a stream that is reset for this frame is thrown away.
            Err(error @ (RecvError::Stream { .. } | RecvError::Ignored)) => (None, Err(error)),
        };
        // Nobody will read it, so its room on the connection is free at once.
        if stream.is_none() {
            self.release_connection_capacity(length, out);
        }
        let end_stream = header.has(flag::END_STREAM);
        self.incoming = Some(IncomingData { stream, end_stream, is_empty: true, left: length });
        result
    }

    /// Returns the stream that takes a DATA frame; `None` if it is closed and the peer may not know that.
    #[inline]
    fn stream_for_data(&self, id: u32, length: u32) -> Result<Option<StreamRef>, RecvError> {
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

    /// Takes some of the payload of a DATA frame.
    #[inline]
    pub(crate) fn recv_data(&mut self, data: &[u8], settings: &ExchangedSettings, out: &mut Outbox) {
        let Some(incoming) = &mut self.incoming else { return };
        incoming.is_empty = false;
        let Some(stream) = incoming.stream.clone() else { return };
        // A piece is not longer than its frame.
        incoming.left -= u32::try_from(data.len()).unwrap_or(incoming.left).min(incoming.left);
        let mut stream = stream.borrow_mut();
        stream.content.recv(data.len());
        if stream.recv.is_dropped || stream.state.is_closed() {
            self.release_capacity(&mut stream, data.len(), settings, out);
        } else {
            stream.recv.push(data);
        }
    }

    /// Ends a DATA frame. One that carries nothing, neither payload nor END_STREAM, has a budget.
    #[inline]
    pub(crate) fn recv_data_end(
        &mut self,
        settings: &ExchangedSettings,
        budgets: &mut Budgets,
        out: &mut Outbox,
    ) -> Result<(), RecvError> {
        let Some(incoming) = self.incoming.take() else { return Ok(()) };
        if incoming.is_empty && !incoming.end_stream {
            budgets.charge(Flood::EmptyFrames, 1)?;
        }
        let Some(stream) = incoming.stream else { return Ok(()) };
        let mut stream = stream.borrow_mut();
        // The rest is padding, which nobody reads.
        self.release_capacity(&mut stream, incoming.left as usize, settings, out);
        // If the stream was reset meanwhile, a part of its data is missing, and this is no end.
        if stream.state.is_closed() {
            return Ok(());
        }
        if stream.content.is_wrong(incoming.end_stream) {
            return Err(RecvError::Stream { stream_id: stream.id, code: code::PROTOCOL_ERROR });
        }
        if incoming.end_stream {
            self.recv_end_stream(&mut stream, out);
        }
        Ok(())
    }

    fn recv_end_stream(&mut self, stream: &mut Stream, out: &mut Outbox) {
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
            for stream in self.store.split_off(last + 1) {
                stream.borrow_mut().abort(Cause::Unprocessed);
            }
        }
        self.wake_waiting();
        Ok(())
    }

    /// Ends all streams with the connection.
    pub(crate) fn fail(&mut self, error: &Arc<Error>) {
        for stream in self.store.split_off(0) {
            stream.borrow_mut().abort(Cause::ConnectionLost(error.clone()));
        }
        self.scheduler.clear();
        self.requests.clear();
        self.wake_waiting();
    }

    /// Registers `cx` to be woken when there may be room for another stream.
    pub(crate) fn watch_room(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    /// Wakes all tasks that wait to open a stream.
    pub(crate) fn wake_waiting(&mut self) {
        for waker in std::mem::take(&mut self.waiting) {
            waker.wake();
        }
    }

    // DATA of ours.

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
        self.scheduler.buffered_bytes()
            + self.requests.capacity() * size_of::<(StreamRef, RequestHead)>()
            + self.waiting.capacity() * size_of::<Waker>()
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
