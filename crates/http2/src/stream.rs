//! One stream: its state, its windows and both of its queues. It knows no frames; see `streams`.

use crate::Reason;
use crate::content::Content;
use crate::fields::ResponseHead;
use crate::flow_control::FlowControl;
use crate::recv_queue::RecvQueue;
use crate::send_queue::SendQueue;
use crate::state::{Cause, State};
use bytes::Bytes;
use std::task::Context;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub(crate) id: u32,
    pub(crate) state: State,
    pub(crate) flow: FlowControl,
    pub(crate) send: SendQueue,
    pub(crate) recv: RecvQueue,
    pub(crate) content: Content,
    /// The peer's response, until it is taken. Only a client's stream has one.
    pub(crate) response: Option<Box<ResponseHead>>,
    /// The final response has been sent or received.
    pub(crate) is_answered: bool,
    /// Carries a tunnel: a server's CONNECT, or a client's that was answered with 2xx.
    pub(crate) is_tunnel: bool,
}

impl Stream {
    pub(crate) const fn new(id: u32, flow: FlowControl) -> Self {
        Self {
            id,
            state: State::Open,
            flow,
            send: SendQueue::new(),
            recv: RecvQueue::new(),
            content: Content::UNKNOWN,
            response: None,
            is_answered: false,
            is_tunnel: false,
        }
    }

    /// Returns whether a DATA frame can be sent as far as the stream's own window goes.
    #[inline]
    pub(crate) const fn is_sendable(&self) -> bool {
        self.state.is_send_open()
            && if self.send.bytes() > 0 { self.flow.send_capacity() > 0 } else { self.send.is_end_stream_queued() }
    }

    /// Closes the stream before its end, unless it is closed. What it has received can still be read.
    pub(crate) fn abort(&mut self, cause: Cause) {
        if self.state.close(cause) {
            self.send.clear();
            self.recv.wake();
        }
    }

    /// Queues bytes to send. The connection must be told by [`schedule`](crate::Connection::schedule).
    #[inline]
    pub fn send_data(&mut self, data: Bytes) {
        self.send.push(data);
    }

    /// Queues END_STREAM behind them.
    pub const fn send_end_stream(&mut self) {
        self.send.push_end_stream();
    }

    /// Number of bytes that are queued and not on their way.
    #[inline]
    pub const fn queued_bytes(&self) -> usize {
        self.send.bytes()
    }

    /// Returns whether our direction has ended, or ends behind what is queued.
    #[inline]
    pub const fn is_send_finished(&self) -> bool {
        self.send.is_end_stream_queued() || !self.state.is_send_open()
    }

    /// Wakes `cx` when the stream takes more to send, or is closed before its end.
    pub fn watch_capacity(&mut self, cx: &Context<'_>) {
        self.send.watch_capacity(cx);
    }

    /// Wakes `cx` when the stream is closed before its end.
    pub fn watch_reset(&mut self, cx: &Context<'_>) {
        self.send.watch_reset(cx);
    }

    /// Wakes `cx` when something is received, or the peer's direction ends or is cut.
    pub fn watch_recv(&mut self, cx: &Context<'_>) {
        self.recv.watch(cx);
    }

    /// Removes the next piece of what was received.
    #[inline]
    pub fn pop_data(&mut self) -> Option<Bytes> {
        self.recv.pop()
    }

    /// Takes the peer's response, once.
    pub fn take_response(&mut self) -> Option<ResponseHead> {
        self.response.take().map(|head| *head)
    }

    /// Returns whether the peer has sent END_STREAM.
    pub const fn is_end_stream_received(&self) -> bool {
        self.state.is_end_stream_received()
    }

    /// Returns whether the peer has reset the stream because it wants no more, and nothing is wrong.
    pub const fn is_reset_without_error(&self) -> bool {
        matches!(self.state.abort_cause(), Some(Cause::ResetByPeer(Reason::NoError)))
    }

    /// Returns the cause, if the stream was closed before its end.
    #[inline]
    pub const fn abort_cause(&self) -> Option<&Cause> {
        self.state.abort_cause()
    }

    /// Returns whether nothing is queued, with no memory behind it.
    #[cfg(test)]
    pub(crate) const fn has_no_queues(&self) -> bool {
        self.send.is_unallocated() && self.recv.is_unallocated()
    }
}
