//! State of one stream (RFC 9113, section 5.1), and the cause of its end.
//!
//! `idle` needs no value: a stream has a state from its first HEADERS on. There is no server push, so no stream is
//! ever `reserved`. Streams that were closed a while ago have no state either; see `closed_streams`.

use crate::{Error, Reason};
use std::sync::Arc;

/// Cause of the end of a stream.
#[derive(Debug, Clone)]
pub enum Cause {
    /// Both sides have sent END_STREAM.
    EndStream,
    /// The peer has sent RST_STREAM.
    ResetByPeer(Reason),
    /// We have sent RST_STREAM.
    ResetByUs(Reason),
    /// The peer goes away and has not processed the stream (GOAWAY, section 6.8).
    Unprocessed,
    /// The connection is over.
    ConnectionLost(Arc<Error>),
}

/// State of a stream.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Open,
    /// We have sent END_STREAM.
    HalfClosedLocal,
    /// The peer has sent END_STREAM.
    HalfClosedRemote,
    Closed {
        cause: Cause,
        /// The peer had sent END_STREAM before: what it has sent is complete, whatever closed the stream.
        end_stream_received: bool,
    },
}

impl State {
    /// Notes that our END_STREAM is sent.
    pub(super) fn send_end_stream(&mut self) {
        match self {
            Self::Open => *self = Self::HalfClosedLocal,
            Self::HalfClosedRemote => *self = Self::Closed { cause: Cause::EndStream, end_stream_received: true },
            Self::HalfClosedLocal | Self::Closed { .. } => {}
        }
    }

    /// Notes that the peer's END_STREAM has come.
    pub(super) fn recv_end_stream(&mut self) {
        match self {
            Self::Open => *self = Self::HalfClosedRemote,
            Self::HalfClosedLocal => *self = Self::Closed { cause: Cause::EndStream, end_stream_received: true },
            Self::HalfClosedRemote | Self::Closed { .. } => {}
        }
    }

    /// Closes the stream unless it is closed already. Returns whether it was open until now.
    pub(super) fn close(&mut self, cause: Cause) -> bool {
        if matches!(self, Self::Closed { .. }) {
            return false;
        }
        // A reset behind END_STREAM does not take back data that is complete: its reader still gets all of it.
        *self = Self::Closed { cause, end_stream_received: self.is_end_stream_received() };
        true
    }

    /// Returns whether the stream is closed, in order or not.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Returns whether we may still send DATA.
    pub(super) const fn is_send_open(&self) -> bool {
        matches!(self, Self::Open | Self::HalfClosedRemote)
    }

    /// Returns whether the peer may still send DATA.
    pub(super) const fn is_recv_open(&self) -> bool {
        matches!(self, Self::Open | Self::HalfClosedLocal)
    }

    /// Returns whether the peer has sent END_STREAM.
    pub(super) const fn is_end_stream_received(&self) -> bool {
        match self {
            Self::Open | Self::HalfClosedLocal => false,
            Self::HalfClosedRemote => true,
            Self::Closed { end_stream_received, .. } => *end_stream_received,
        }
    }

    /// Returns the cause, if the stream was closed before both sides had sent END_STREAM.
    pub(super) const fn abort_cause(&self) -> Option<&Cause> {
        match self {
            Self::Open | Self::HalfClosedLocal | Self::HalfClosedRemote => None,
            Self::Closed { cause: Cause::EndStream, .. } => None,
            Self::Closed { cause, .. } => Some(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(state: &State) -> &'static str {
        match state {
            State::Open => "open",
            State::HalfClosedLocal => "half-closed (local)",
            State::HalfClosedRemote => "half-closed (remote)",
            State::Closed { cause: Cause::EndStream, .. } => "closed",
            State::Closed { .. } => "reset",
        }
    }

    #[test]
    fn a_stream_goes_through_the_states_of_section_5_1() {
        type Step = fn(&mut State);
        let send: Step = State::send_end_stream;
        let recv: Step = State::recv_end_stream;
        let reset: Step = |state| {
            state.close(Cause::ResetByPeer(Reason::Cancel));
        };
        for (steps, expected, complete) in [
            (vec![], "open", false),
            (vec![send], "half-closed (local)", false),
            (vec![recv], "half-closed (remote)", true),
            (vec![send, recv], "closed", true),
            (vec![recv, send], "closed", true),
            (vec![reset], "reset", false),
            (vec![recv, reset], "reset", true),
            (vec![send, reset], "reset", false),
            (vec![reset, recv, send], "reset", false),
            (vec![send, recv, reset], "closed", true),
        ] {
            let mut state = State::Open;
            for step in &steps {
                step(&mut state);
            }

            assert_eq!((name(&state), state.is_end_stream_received()), (expected, complete));
            assert_eq!(state.is_closed(), matches!(expected, "closed" | "reset"));
            assert_eq!(state.abort_cause().is_some(), expected == "reset");
        }
    }
}
