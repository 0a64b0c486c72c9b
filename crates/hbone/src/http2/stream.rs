//! One stream: what waits to be sent, what has arrived, and how it ended. It knows no frames; see `connection`.

use super::{Fault, Head};
use crate::{Reason, StreamError};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Pieces that may wait as they came. A peer can make them as small as a byte, and what each costs beside its bytes is
/// in no window: behind these, small ones are put together.
const PIECES: usize = 64;
/// What they are put together to, at most, bytes.
const SMALL_BYTES: usize = 512;

/// A stream as its tunnel and its handles share it.
pub(crate) type Line = Rc<RefCell<State>>;

/// How a stream was cut.
#[derive(Debug, Clone)]
pub(crate) enum Closed {
    /// The peer has reset it.
    ByPeer(Reason),
    /// We have.
    ByUs(Reason),
    /// The peer goes away and has not seen it (GOAWAY, section 6.8).
    Unseen,
    /// The tunnel is over.
    Lost(Arc<Fault>),
}

/// The end of our direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Open,
    /// Behind what is queued.
    Wanted,
    Sent,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) id: u32,
    /// Waits to be sent.
    pub(super) out: VecDeque<Bytes>,
    pub(super) out_bytes: usize,
    /// What the peer lets us send; SETTINGS can make it negative (section 6.9.2).
    pub(super) send_window: i64,
    pub(super) finish: Finish,
    /// In the queue of those that have something to send.
    pub(super) listed: bool,
    send_waker: Option<Waker>,
    /// Whoever sends waits until less is queued.
    wants_room: bool,
    /// Has arrived and is not read.
    arrived: VecDeque<Bytes>,
    /// Has arrived and is not given back, read or not, bytes.
    pub(super) held_bytes: u32,
    /// What the peer may still send.
    pub(super) receive_window: i64,
    /// Given back, and the peer does not know.
    pub(super) returned_bytes: u32,
    /// The peer has sent all.
    pub(super) ended: bool,
    receive_waker: Option<Waker>,
    /// The peer's answer, until it is taken. Only a client's stream has one.
    pub(super) head: Option<Head>,
    /// The peer has answered, with a final status.
    pub(super) answered: bool,
    pub(super) closed: Option<Closed>,
    /// Nobody reads any more.
    pub(super) unread: bool,
}

impl State {
    pub(super) const fn new(id: u32, send_window: i64, receive_window: i64) -> Self {
        Self {
            id,
            out: VecDeque::new(),
            out_bytes: 0,
            send_window,
            finish: Finish::Open,
            listed: false,
            send_waker: None,
            wants_room: false,
            arrived: VecDeque::new(),
            held_bytes: 0,
            receive_window,
            returned_bytes: 0,
            ended: false,
            receive_waker: None,
            head: None,
            answered: false,
            closed: None,
            unread: false,
        }
    }

    /// Whether the peer's windows apart there is something to send.
    pub(super) const fn has_work(&self) -> bool {
        if self.out_bytes > 0 { self.send_window > 0 } else { matches!(self.finish, Finish::Wanted) }
    }

    /// Both directions have ended in order.
    pub(super) const fn is_over(&self) -> bool {
        self.ended && matches!(self.finish, Finish::Sent)
    }

    /// Cuts the stream, once. What has arrived can still be read.
    pub(super) fn cut(&mut self, how: Closed) {
        if self.closed.is_none() {
            self.closed = Some(how);
            self.out.clear();
            self.out_bytes = 0;
            self.wake_sender();
            self.wake_receiver();
        }
    }

    pub(crate) fn queue(&mut self, data: Bytes) {
        self.out_bytes += data.len();
        self.out.push_back(data);
    }

    pub(super) fn arrive(&mut self, data: &[u8]) {
        let many = self.arrived.len() >= PIECES;
        match self.arrived.back_mut() {
            Some(last) if many && last.len() + data.len() <= SMALL_BYTES => *last = [last, data].concat().into(),
            _ => self.arrived.push_back(Bytes::copy_from_slice(data)),
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
    pub(crate) fn watch_room(&mut self, cx: &Context<'_>) {
        self.wants_room = true;
        self.watch_cut(cx);
    }

    /// Wakes `cx` when the stream is cut.
    pub(crate) fn watch_cut(&mut self, cx: &Context<'_>) {
        watch(&mut self.send_waker, cx);
    }

    /// Wakes `cx` when something arrives, or the stream ends or is cut.
    pub(crate) fn watch_receive(&mut self, cx: &Context<'_>) {
        watch(&mut self.receive_waker, cx);
    }

    /// Whether our direction has ended, or will behind what is queued.
    pub(crate) const fn is_finished(&self) -> bool {
        !matches!(self.finish, Finish::Open)
    }

    /// Ends our direction behind what is queued.
    pub(crate) const fn want_finish(&mut self) {
        if matches!(self.finish, Finish::Open) {
            self.finish = Finish::Wanted;
        }
    }

    /// Whether the peer has reset the stream because it wants no more, and nothing is wrong.
    pub(crate) const fn is_refused_in_order(&self) -> bool {
        matches!(self.closed, Some(Closed::ByPeer(Reason::NoError)))
    }

    /// How the stream was cut, if it was.
    pub(crate) const fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Waits to be sent, bytes.
    pub(crate) const fn queued_bytes(&self) -> usize {
        self.out_bytes
    }

    /// The peer's answer, once.
    pub(crate) const fn take_head(&mut self) -> Option<Head> {
        self.head.take()
    }

    /// The next piece that has arrived.
    pub(crate) fn take_arrived(&mut self) -> Option<Bytes> {
        self.arrived.pop_front()
    }

    /// What a reader meets behind all that has arrived: nothing yet, an end, or a loss.
    pub(crate) fn end_of_data(&self) -> Option<Result<(), StreamError>> {
        // An end that came before a reset stays an end.
        if self.ended {
            return Some(Ok(()));
        }
        Some(match self.closed.as_ref()? {
            Closed::ByPeer(reason) => StreamError::receiving(*reason),
            Closed::ByUs(reason) => Err(StreamError::Reset(*reason)),
            Closed::Unseen => Err(StreamError::Reset(Reason::Refused)),
            Closed::Lost(fault) => Err(StreamError::Tunnel(fault.clone())),
        })
    }

    /// What a sender meets, if the stream is cut.
    pub(crate) fn end_of_sending(&self) -> Option<StreamError> {
        Some(match self.closed.as_ref()? {
            Closed::ByPeer(reason) => StreamError::sending(*reason),
            Closed::ByUs(_) => StreamError::BrokenPipe,
            Closed::Unseen => StreamError::Reset(Reason::Refused),
            Closed::Lost(fault) => StreamError::Tunnel(fault.clone()),
        })
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
