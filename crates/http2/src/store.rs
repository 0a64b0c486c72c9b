//! Streams by identifier, and what is known of identifiers that have none (RFC 9113, section 5.1.1).

use crate::closed_streams::{Absent, ClosedStreams};
use crate::exchanged_settings::ExchangedSettings;
use crate::flow_control::FlowControl;
use crate::frame::MAX_STREAM_ID;
use crate::goaway::GoAway;
use crate::{Role, Stream, StreamRef};
use std::collections::BTreeMap;

/// A stream that a frame names.
pub(crate) enum Found {
    Open(StreamRef),
    Absent(Absent),
}

/// Identifiers of a connection.
#[derive(Debug)]
pub(crate) struct Store {
    role: Role,
    /// Streams that are not closed.
    open: BTreeMap<u32, StreamRef>,
    closed: ClosedStreams,
    /// Highest identifier that the client has used, whichever side that is; 0 before the first.
    last_id: u32,
    pub(crate) goaway: GoAway,
}

impl Store {
    pub(crate) fn new(role: Role, max_concurrent_streams: u32) -> Self {
        Self {
            role,
            open: BTreeMap::new(),
            closed: ClosedStreams::new(max_concurrent_streams),
            last_id: 0,
            goaway: GoAway::new(),
        }
    }

    /// Number of open streams.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn get(&self, id: u32) -> Option<StreamRef> {
        self.open.get(&id).cloned()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &StreamRef> {
        self.open.values()
    }

    /// Returns what is behind an identifier.
    #[inline]
    pub(crate) fn find(&self, id: u32) -> Found {
        // The ordinary case first. A BTreeMap: identifiers grow, and GOAWAY cuts the map at one of them.
        if let Some(stream) = self.open.get(&id) {
            return Found::Open(stream.clone());
        }
        // Only clients open streams, with odd identifiers. Even ones, and 0, are never used.
        let is_used = id % 2 == 1 && id <= self.last_id;
        Found::Absent(if !is_used {
            Absent::Idle
        } else if id > self.goaway.last_stream_id() {
            Absent::Ignored
        } else {
            self.closed.find(id)
        })
    }

    /// Returns whether identifiers are left for another stream of a client.
    #[inline]
    pub(crate) const fn has_ids(&self) -> bool {
        self.next_id() <= MAX_STREAM_ID
    }

    #[inline]
    const fn next_id(&self) -> u32 {
        if self.last_id == 0 { 1 } else { self.last_id + 2 }
    }

    /// Uses the next identifier of a client.
    #[inline]
    pub(crate) const fn use_next_id(&mut self) -> u32 {
        self.last_id = self.next_id();
        self.last_id
    }

    /// Notes that a server's peer has used an identifier. All below it that were idle cannot be used any more.
    #[inline]
    pub(crate) fn recv_id(&mut self, id: u32) {
        // Section 5.1.1: a new identifier closes all lower ones that are idle.
        self.closed.insert_gap(self.last_id, id);
        self.last_id = id;
    }

    /// Last stream of the peer's that this side processes, for GOAWAY: never more than an earlier one has said
    /// (section 6.8).
    pub(crate) fn last_processed_id(&self) -> u32 {
        match self.role {
            Role::Client => 0,
            Role::Server => self.last_id.min(self.goaway.last_stream_id()),
        }
    }

    /// Makes a stream for an identifier.
    #[inline]
    pub(crate) fn insert(&mut self, id: u32, settings: &ExchangedSettings) -> StreamRef {
        // Each side's window is announced by the other: ours to send is the peer's setting.
        let flow = FlowControl::new(settings.peer.initial_window_size(), settings.local.initial_window_size());
        let stream = StreamRef::new(Stream::new(id, flow));
        self.open.insert(id, stream.clone());
        stream
    }

    /// Forgets a stream that is closed. Returns whether the connection can close now.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> bool {
        self.open.remove(&id);
        self.open.is_empty() && (self.goaway.is_closing() || self.goaway.is_received())
    }

    /// Removes the streams with identifiers from `first` on.
    pub(crate) fn split_off(&mut self, first: u32) -> impl Iterator<Item = StreamRef> {
        self.open.split_off(&first).into_values()
    }

    /// Notes that RST_STREAM is sent.
    pub(crate) fn reset_sent(&mut self, id: u32) {
        self.closed.insert_reset(id);
    }

    /// Notes that a PING is sent behind all resets so far.
    pub(crate) fn ping_sent(&mut self) {
        self.closed.send_ping();
    }

    /// Notes that it is acknowledged: the peer knows of those resets.
    pub(crate) fn ping_acked(&mut self) {
        self.closed.recv_ping_ack();
    }
}
