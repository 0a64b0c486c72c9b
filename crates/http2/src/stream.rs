//! One stream: what waits to be sent, what has arrived, and how it ended. It knows no frames; see `connection`.

use super::ResponseHead;
use super::pieces::Pieces;
use super::state::{Cause, State};
use crate::Reason;
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Pieces that may wait as they came. A peer can make them as small as a byte, and what each costs beside its bytes is
/// in no window: behind these, small ones are put together.
const PIECES: usize = 64;
/// What they are put together to, at most, bytes.
const SMALL_BYTES: usize = 512;

/// In place of a content length that is not known.
const NO_LENGTH: i64 = i64::MAX;

/// A stream as its tunnel and its handles share it.
pub type StreamRef = Rc<RefCell<Stream>>;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) id: u32,
    pub(super) state: State,
    /// Waits to be sent.
    pub(super) out: Pieces,
    pub(super) out_bytes: usize,
    /// What the peer lets us send; SETTINGS can make it negative (section 6.9.2).
    pub(super) send_window: i64,
    /// END_STREAM is to be sent behind what is queued.
    end_stream_queued: bool,
    /// In the queue of those that have something to send.
    pub(super) is_scheduled: bool,
    send_waker: Option<Waker>,
    /// Whoever sends waits until less is queued.
    wants_room: bool,
    /// Has arrived and is not read.
    received: Pieces,
    /// Has arrived and is not given back, read or not, bytes.
    pub(super) held_bytes: u32,
    /// What the peer may still send.
    pub(super) receive_window: i64,
    /// Given back, and the peer does not know.
    pub(super) returned_bytes: u32,
    receive_waker: Option<Waker>,
    /// The peer's answer, until it is taken. Only a client's stream has one.
    pub(super) head: Option<Box<ResponseHead>>,
    /// The final answer has been sent or received.
    pub(super) is_answered: bool,
    /// Carries a tunnel: a server's CONNECT, or a client's that was answered with 2xx.
    pub(super) is_tunnel: bool,
    /// Bytes that `content-length` promises and that have not come; [`NO_LENGTH`] without one, as with all tunnels.
    content_left: i64,
    /// Nobody reads any more.
    pub(super) is_recv_dropped: bool,
}

impl Stream {
    pub(super) const fn new(id: u32, send_window: i64, receive_window: i64) -> Self {
        Self {
            id,
            state: State::Open,
            out: Pieces::new(),
            out_bytes: 0,
            send_window,
            end_stream_queued: false,
            is_scheduled: false,
            send_waker: None,
            wants_room: false,
            received: Pieces::new(),
            held_bytes: 0,
            receive_window,
            returned_bytes: 0,
            receive_waker: None,
            head: None,
            is_answered: false,
            is_tunnel: false,
            content_left: NO_LENGTH,
            is_recv_dropped: false,
        }
    }

    /// Whether the peer's windows apart there is something to send.
    pub(super) const fn is_sendable(&self) -> bool {
        self.state.is_send_open() && if self.out_bytes > 0 { self.send_window > 0 } else { self.end_stream_queued }
    }

    /// Whether the frame that carries the last of what is queued has to carry END_STREAM.
    pub(super) const fn is_end_stream_queued(&self) -> bool {
        self.end_stream_queued
    }

    /// Closes the stream before its end, once. What has arrived can still be read.
    pub(super) fn abort(&mut self, cause: Cause) {
        if self.state.close(cause) {
            self.out.clear();
            self.out_bytes = 0;
            self.wake_sender();
            self.wake_receiver();
        }
    }

    /// Whether nothing is queued, with no memory behind it.
    #[cfg(test)]
    pub(super) const fn has_no_queues(&self) -> bool {
        self.out.is_unallocated() && self.received.is_unallocated()
    }

    pub fn queue_data(&mut self, data: Bytes) {
        self.out_bytes += data.len();
        self.out.push_back(data);
    }

    /// Expects as much content as `content-length` says.
    pub(super) const fn set_content_length(&mut self, bytes: Option<i64>) {
        self.content_left = match bytes {
            Some(bytes) => bytes,
            None => NO_LENGTH,
        };
    }

    /// Some content has come.
    pub(super) const fn recv_content(&mut self, bytes: usize) {
        if self.content_left != NO_LENGTH {
            self.content_left = self.content_left.saturating_sub_unsigned(bytes as u64);
        }
    }

    /// Whether less or more content has come than promised. `end_stream` says whether it is all.
    pub(super) const fn has_wrong_content_length(&self, end_stream: bool) -> bool {
        self.content_left != NO_LENGTH && (self.content_left < 0 || end_stream && self.content_left > 0)
    }

    pub(super) fn recv_data(&mut self, data: &[u8]) {
        let many = self.received.len() >= PIECES;
        match self.received.back_mut() {
            Some(last) if many && last.len() + data.len() <= SMALL_BYTES => *last = [last, data].concat().into(),
            _ => self.received.push_back(Bytes::copy_from_slice(data)),
        }
        self.wake_receiver();
    }

    pub(super) fn wake_sender(&mut self) {
        self.wants_room = false;
        wake(&mut self.send_waker);
    }

    pub(super) fn wake_receiver(&mut self) {
        wake(&mut self.receive_waker);
    }

    /// Whether somebody is to be woken when there is room for more to send.
    pub(super) const fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// Wakes `cx` when the stream takes more to send, or is cut.
    pub fn watch_capacity(&mut self, cx: &Context<'_>) {
        self.wants_room = true;
        self.watch_reset(cx);
    }

    /// Wakes `cx` when the stream is cut.
    pub fn watch_reset(&mut self, cx: &Context<'_>) {
        watch(&mut self.send_waker, cx);
    }

    /// Wakes `cx` when something arrives, or the stream ends or is cut.
    pub fn watch_recv(&mut self, cx: &Context<'_>) {
        watch(&mut self.receive_waker, cx);
    }

    /// Whether our direction has ended, or will behind what is queued.
    pub const fn is_finished(&self) -> bool {
        self.end_stream_queued || !self.state.is_send_open()
    }

    /// Ends our direction behind what is queued.
    pub const fn queue_end_stream(&mut self) {
        self.end_stream_queued = true;
    }

    /// Whether the peer has reset the stream because it wants no more, and nothing is wrong.
    pub const fn is_reset_without_error(&self) -> bool {
        matches!(self.state.abort_cause(), Some(Cause::ResetByPeer(Reason::NoError)))
    }

    /// Why the stream was closed before its end, if it was.
    pub const fn abort_cause(&self) -> Option<&Cause> {
        self.state.abort_cause()
    }

    /// Waits to be sent, bytes.
    pub const fn queued_bytes(&self) -> usize {
        self.out_bytes
    }

    /// The peer's answer, once.
    pub fn take_response(&mut self) -> Option<ResponseHead> {
        self.head.take().map(|head| *head)
    }

    /// The next piece that has arrived.
    pub fn pop_data(&mut self) -> Option<Bytes> {
        self.received.pop_front()
    }

    /// Whether the peer has sent all of its direction.
    pub const fn is_end_stream_received(&self) -> bool {
        self.state.is_end_stream_received()
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Has `waker` wake `cx`.
pub(super) fn watch(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
