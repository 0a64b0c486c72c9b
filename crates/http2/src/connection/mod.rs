//! The state of a connection, and what its driver and its users ask of it. What the peer says is in the files beside.
//! It neither reads nor writes; see `engine`.

mod blocks;
mod budget;
mod closed;
mod control;
mod incoming;
mod outgoing;
mod streams;

use super::fields;
use super::frame::{
    DEFAULT_INITIAL_WINDOW_SIZE, DEFAULT_MAX_FRAME_SIZE, MAX_WINDOW_SIZE, PREFACE, encode, encode_goaway,
    encode_headers, encode_settings, encode_u32, flag, kind, setting,
};
use super::reader::Event;
use super::stream::watch;
use super::{Cause, Error, RequestHead, StreamRef};
use crate::Settings;
use crate::hpack::{Decoder, Encoder};
pub(super) use blocks::BLOCKS_PER_LIST;
use blocks::Block;
use budget::Budgets;
use closed::ClosedStreams;
use http::{HeaderMap, StatusCode};
use incoming::Incoming;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use streams::Found;

/// Answers to a peer that does not read them: from here on we do not read what it sends, bytes.
const CONTROL_BYTES: usize = 64 << 10;
/// Room for requests that a connection keeps when nobody has asked for anything. A burst needs more.
const KEPT_REQUESTS: usize = 4;
/// What our PINGs carry.
const KEEPALIVE: [u8; 8] = *b"strake:a";
const DRAINED: [u8; 8] = *b"strake:d";
const CLOSED: [u8; 8] = *b"strake:c";

/// Which end of a tunnel this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    /// What this end takes as one list of headers, bytes.
    pub(super) const fn header_list_bytes(self, settings: &Settings) -> u32 {
        match self {
            Self::Client => settings.client_header_list_bytes,
            Self::Server => settings.server_header_list_bytes,
        }
    }
}

/// The connection takes no more streams: its peer goes away, or it is lost.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the tunnel is closing")]
pub struct GoingAway;

/// A connection as its driver, its streams and its users share it.
pub type Shared = Rc<RefCell<Connection>>;

/// What the peer has said of itself.
#[derive(Debug)]
struct Peer {
    /// Its first SETTINGS have come.
    known: bool,
    window_bytes: i64,
    frame_bytes: usize,
    streams: usize,
    /// It has seen our SETTINGS.
    has_our_settings: bool,
    /// It takes no new streams.
    is_going_away: bool,
    /// The last stream that it processes, as its GOAWAY says.
    last_processed: u32,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    settings: Settings,
    peer: Peer,
    streams: BTreeMap<u32, StreamRef>,
    /// Those that have something to send.
    ready: VecDeque<StreamRef>,
    /// Control frames to be sent.
    control: Vec<u8>,
    send_window: i64,
    receive_window: i64,
    /// Given back, and the peer does not know, bytes.
    returned_bytes: u32,
    decoder: Decoder,
    encoder: Encoder,
    closed: ClosedStreams,
    budgets: Budgets,
    block: Option<Block>,
    incoming: Option<Incoming>,
    /// The next stream that a client opens.
    next: u32,
    /// The last stream that a server has seen.
    last: u32,
    /// The last that it takes.
    last_taken: u32,
    requests: VecDeque<(StreamRef, RequestHead)>,
    /// Who waits to open a stream.
    waiting: Vec<Waker>,
    driver: Option<Waker>,
    is_driver_woken: bool,
    draining: bool,
    /// Has told the peer the last stream there will be, or has no users any more.
    closing: bool,
    answered_ping: bool,
    lost: bool,
}

impl Connection {
    pub fn new(role: Role, settings: &Settings) -> Self {
        let mut control = Vec::new();
        let own = settings;
        let about_streams = match role {
            Role::Client => {
                control.extend_from_slice(PREFACE);
                (setting::ENABLE_PUSH, 0)
            }
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, own.max_concurrent_streams),
        };
        encode_settings(
            &mut control,
            &[
                about_streams,
                (setting::INITIAL_WINDOW_SIZE, own.stream_window_bytes),
                (setting::MAX_FRAME_SIZE, own.frame_bytes),
                (setting::MAX_HEADER_LIST_SIZE, role.header_list_bytes(own)),
            ],
        );
        let window = own.connection_window_bytes.max(DEFAULT_INITIAL_WINDOW_SIZE);
        if window > DEFAULT_INITIAL_WINDOW_SIZE {
            encode_u32(&mut control, kind::WINDOW_UPDATE, 0, window - DEFAULT_INITIAL_WINDOW_SIZE);
        }
        Self {
            role,
            settings: own.clone(),
            peer: Peer {
                known: false,
                window_bytes: DEFAULT_INITIAL_WINDOW_SIZE.into(),
                frame_bytes: DEFAULT_MAX_FRAME_SIZE,
                streams: own.initial_streams,
                has_our_settings: false,
                is_going_away: false,
                last_processed: MAX_WINDOW_SIZE,
            },
            streams: BTreeMap::new(),
            ready: VecDeque::new(),
            control,
            send_window: DEFAULT_INITIAL_WINDOW_SIZE.into(),
            receive_window: window.into(),
            returned_bytes: 0,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            closed: ClosedStreams::new(own.max_concurrent_streams),
            budgets: Budgets::new(),
            block: None,
            incoming: None,
            next: 1,
            last: 0,
            last_taken: MAX_WINDOW_SIZE,
            requests: VecDeque::new(),
            waiting: Vec::new(),
            driver: None,
            is_driver_woken: false,
            draining: false,
            closing: false,
            answered_ping: false,
            lost: false,
        }
    }

    /// A turn of the driver begins; what happens from here on wakes `cx`.
    pub(super) fn begin_poll(&mut self, cx: &Context<'_>) {
        // Until its end nobody needs to wake it.
        self.is_driver_woken = true;
        watch(&mut self.driver, cx);
    }

    /// The turn has written what there was.
    pub(super) const fn end_poll(&mut self) {
        self.is_driver_woken = false;
    }

    fn wake_driver(&mut self) {
        if !self.is_driver_woken
            && let Some(driver) = &self.driver
        {
            self.is_driver_woken = true;
            driver.wake_by_ref();
        }
    }

    /// Whether enough has been read until what it has caused is done.
    pub(super) fn is_full(&self) -> bool {
        let most = 2 * self.settings.max_concurrent_streams as usize;
        self.control.len() >= CONTROL_BYTES || self.requests.len() >= most
    }

    /// Whether nobody needs the connection any more and its last word is said.
    pub(super) fn is_finished(&self) -> bool {
        let unused = self.streams.is_empty() && self.requests.is_empty();
        unused && (self.closing || self.role == Role::Client && self.peer.is_going_away)
    }

    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    pub(super) fn send_ping(&mut self) {
        self.answered_ping = false;
        self.closed.send_ping();
        encode(&mut self.control, kind::PING, 0, 0, &KEEPALIVE);
        self.wake_driver();
    }

    pub(super) const fn is_ping_answered(&self) -> bool {
        self.answered_ping
    }

    /// The last words of a connection that nobody needs any more. The answer to the PING says that the peer has read all.
    pub(super) fn send_final_goaway(&mut self) {
        self.send_goaway(0);
        encode(&mut self.control, kind::PING, 0, 0, &CLOSED);
    }

    /// Whether the peer answers the PING of [`close_in_order`](Self::close_in_order).
    pub(super) fn is_final_ping_ack(event: &Event<'_>) -> bool {
        matches!(event, Event::Frame(head, payload) if head.kind == kind::PING && head.has(flag::ACK) && *payload == CLOSED)
    }

    /// What the peer may have on its way, bytes of DATA.
    pub(super) fn window_bytes(&self) -> usize {
        self.settings.connection_window_bytes.max(DEFAULT_INITIAL_WINDOW_SIZE) as usize
    }

    /// Room in buffers of the connection, bytes.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        let streams = self.ready.capacity() * size_of::<StreamRef>();
        let requests = self.requests.capacity() * size_of::<(StreamRef, RequestHead)>();
        self.control.capacity() + streams + requests + self.waiting.capacity() * size_of::<Waker>()
    }

    /// What the peer may send on all streams when it has heard of all that was given back, bytes.
    #[cfg(test)]
    pub(super) fn free_window_bytes(&self) -> i64 {
        self.receive_window + i64::from(self.returned_bytes)
    }

    /// The last word before the byte stream is closed.
    pub(super) fn send_goaway(&mut self, code: u32) {
        // Never more than what a GOAWAY has said before (section 6.8).
        encode_goaway(&mut self.control, self.last.min(self.last_taken), code);
    }

    /// The connection is over: so are all its streams.
    pub(super) fn fail(&mut self, fault: &Arc<Error>) {
        self.lost = true;
        for line in std::mem::take(&mut self.streams).into_values() {
            line.borrow_mut().abort(Cause::ConnectionLost(fault.clone()));
        }
        self.ready.clear();
        self.requests.clear();
        self.wake_waiting();
    }

    /// Whether streams can be opened.
    pub const fn is_usable(&self) -> bool {
        !(self.lost || self.peer.is_going_away || self.closing || self.next > MAX_WINDOW_SIZE)
    }

    /// Streams that the peer takes at once.
    pub const fn max_send_streams(&self) -> usize {
        self.peer.streams
    }

    /// How long a request may wait for room.
    pub const fn stream_wait(&self) -> Duration {
        self.settings.stream_wait
    }

    /// Whether there is room for another stream now. An error if there never will be.
    pub fn can_open(&self) -> Result<bool, GoingAway> {
        if self.is_usable() { Ok(self.streams.len() < self.peer.streams) } else { Err(GoingAway) }
    }

    /// Ready when there is room for another stream, or never will be.
    pub fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), GoingAway>> {
        match self.can_open() {
            Ok(true) => return Poll::Ready(Ok(())),
            Ok(false) => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Opens a stream; there must be [room](Self::poll_room).
    pub fn connect(&mut self, authority: &str, headers: &HeaderMap) -> StreamRef {
        let block = fields::connect(&mut self.encoder, authority, headers);
        let id = self.next;
        self.next += 2;
        encode_headers(&mut self.control, id, &block, false, self.peer.frame_bytes);
        let line = self.insert(id);
        self.wake_driver();
        line
    }

    /// The next request, if there is one that its peer has not given up.
    pub fn next_request(&mut self) -> Option<(StreamRef, RequestHead)> {
        loop {
            let next = self.requests.pop_front();
            if self.requests.is_empty() && self.requests.capacity() > KEPT_REQUESTS {
                self.requests = VecDeque::new();
            }
            let (line, asked) = next?;
            if line.borrow().abort_cause().is_none() {
                return Some((line, asked));
            }
            self.discard_data(&line);
            // There is room for others, which the driver may have left unread.
            self.wake_driver();
        }
    }

    /// Answers a request. With `end` nothing follows, and nothing more is wanted.
    pub fn send_response(&mut self, line: &StreamRef, status: StatusCode, headers: &HeaderMap, end: bool) {
        let mut stream = line.borrow_mut();
        let block = fields::answer(&mut self.encoder, status, headers);
        encode_headers(&mut self.control, stream.id, &block, end, self.peer.frame_bytes);
        stream.is_answered = true;
        if end {
            stream.state.send_end_stream();
            drop(stream);
            self.discard_data(line);
        }
        self.wake_driver();
    }

    /// How much a stream may keep queued, bytes.
    pub const fn send_buffer_bytes(&self) -> usize {
        self.settings.send_buffer_bytes
    }

    /// A server opens no more streams: tells the peer, then, when that must have heard of it, the last one (section 6.8).
    pub fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            encode_goaway(&mut self.control, MAX_WINDOW_SIZE, 0);
            encode(&mut self.control, kind::PING, 0, 0, &DRAINED);
            self.wake_driver();
        }
    }

    /// A client opens no more streams.
    pub fn close(&mut self) {
        self.closing = true;
        self.wake_driver();
    }
}
