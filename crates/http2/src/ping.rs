//! PINGs that this side sends (RFC 9113, section 6.7): their purposes, and which are acknowledged.

use crate::frame::{flag, kind};
use crate::reader::Event;

/// Finds a peer that is lost; see `keepalive`.
const KEEPALIVE: [u8; 8] = *b"strake:a";
/// Follows the first GOAWAY of a drain: once it is acknowledged, no request is on its way that the peer sent before it
/// knew of the drain (section 6.8).
const DRAIN: [u8; 8] = *b"strake:d";
/// Follows the last GOAWAY: once it is acknowledged, the peer has read everything.
const CLOSE: [u8; 8] = *b"strake:c";

/// Purpose of a PING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Keepalive,
    Drain,
    Close,
}

impl Purpose {
    /// Opaque data of its PING.
    pub(crate) const fn payload(self) -> [u8; 8] {
        match self {
            Self::Keepalive => KEEPALIVE,
            Self::Drain => DRAIN,
            Self::Close => CLOSE,
        }
    }

    /// Purpose of the PING that `payload` acknowledges, unless we never sent it.
    pub(crate) fn of_ack(payload: [u8; 8]) -> Option<Self> {
        [Self::Keepalive, Self::Drain, Self::Close].into_iter().find(|purpose| purpose.payload() == payload)
    }
}

/// State of the keepalive PING.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    is_acked: bool,
}

impl Ping {
    /// Notes that a keepalive PING is sent. At most one is under way.
    pub(crate) const fn sent(&mut self) {
        self.is_acked = false;
    }

    /// Notes that it is acknowledged.
    pub(crate) const fn acked(&mut self) {
        self.is_acked = true;
    }

    /// Returns whether the last one is acknowledged.
    pub(crate) const fn is_acked(&self) -> bool {
        self.is_acked
    }
}

/// Returns whether `event` acknowledges the PING behind our last GOAWAY.
pub(crate) fn is_close_ack(event: &Event<'_>) -> bool {
    matches!(event, Event::Frame(header, payload)
        if header.kind == kind::PING && header.has(flag::ACK) && *payload == CLOSE)
}
