//! Memory of closed streams. It tells a peer's errors from frames that crossed ours on the way (RFC 9113, sections 5.1
//! and
//! 5.1.1). Of most streams nothing has to be remembered.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Number of resets sent by us that are remembered, beyond twice the streams that a peer may have open at once.
///
/// A peer that has not read a reset counts the stream as open, so it cannot have more of them than streams; all older
/// ones it has read.
const LEAST_RESETS: usize = 256;
/// Gaps between stream identifiers that are remembered. Peers count by two, so there are none with ordinary ones. An
/// identifier in a forgotten gap counts as closed, which is an error of the connection as well, with another code.
const GAPS: usize = 16;

/// A stream identifier that belongs to no stream that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Not used yet.
    Idle,
    /// A higher one was used first, so this one can never be used (section 5.1.1).
    Skipped,
    /// We have reset the stream, or said with GOAWAY that we do not process it, and the peer may not know that yet.
    Ignored,
    /// Both sides know that the stream is closed.
    Closed,
}

/// Memory of closed streams.
#[derive(Debug)]
pub(crate) struct ClosedStreams {
    /// Streams that we have reset, the oldest first.
    reset: VecDeque<u32>,
    /// Number of them that were reset before the PING was sent that is not acknowledged yet.
    before_ping: usize,
    most_resets: usize,
    /// Identifiers that the peer has skipped, the oldest first.
    gaps: VecDeque<RangeInclusive<u32>>,
}

impl ClosedStreams {
    pub(crate) fn new(max_concurrent_streams: u32) -> Self {
        let most_resets = LEAST_RESETS.max(2 * max_concurrent_streams as usize);
        Self { reset: VecDeque::new(), before_ping: 0, most_resets, gaps: VecDeque::new() }
    }

    /// Notes that RST_STREAM for `id` is sent.
    pub(crate) fn insert_reset(&mut self, id: u32) {
        if self.reset.len() >= self.most_resets {
            self.reset.pop_front();
            self.before_ping = self.before_ping.saturating_sub(1);
        }
        self.reset.push_back(id);
    }

    /// Notes that the peer has used `id`, and `last` before it.
    pub(crate) fn insert_gap(&mut self, last: u32, id: u32) {
        let next = if last == 0 { 1 } else { last + 2 };
        if next < id {
            if self.gaps.len() >= GAPS {
                self.gaps.pop_front();
            }
            self.gaps.push_back(next..=id - 2);
        }
    }

    /// Notes that a PING is sent behind all resets so far.
    pub(crate) fn send_ping(&mut self) {
        self.before_ping = self.reset.len();
    }

    /// Notes that the PING is acknowledged: the peer has read what was sent before it (section 5.1 suggests this
    /// signal), and sends nothing more on streams that were reset before.
    pub(crate) fn recv_ping_ack(&mut self) {
        self.reset.drain(..self.before_ping);
        self.before_ping = 0;
        if self.reset.is_empty() {
            self.reset = VecDeque::new();
        }
    }

    /// Returns the state of a stream that was used or skipped.
    pub(crate) fn find(&self, id: u32) -> Absent {
        if self.reset.contains(&id) {
            Absent::Ignored
        } else if self.gaps.iter().any(|gap| gap.contains(&id)) {
            Absent::Skipped
        } else {
            Absent::Closed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_remembered_until_a_ping_behind_it_is_answered() {
        let mut closed = ClosedStreams::new(1);
        closed.insert_reset(1);
        closed.send_ping();
        closed.insert_reset(3);

        closed.recv_ping_ack();
        assert_eq!([1, 3].map(|id| closed.find(id)), [Absent::Closed, Absent::Ignored]);

        closed.send_ping();
        closed.recv_ping_ack();
        assert_eq!(closed.find(3), Absent::Closed);
        assert_eq!(closed.reset.capacity(), 0, "an idle connection keeps no buffer");
    }

    #[test]
    fn memory_of_resets_has_a_bound_that_a_peer_with_all_its_streams_open_does_not_reach() {
        let mut closed = ClosedStreams::new(1000);
        for id in 0..5000 {
            closed.insert_reset(2 * id + 1);
            if id == 2500 {
                closed.send_ping();
            }
        }

        assert_eq!(closed.reset.len(), 2000);
        assert_eq!([1, 5999, 6001].map(|id| closed.find(id)), [Absent::Closed, Absent::Closed, Absent::Ignored]);
        closed.recv_ping_ack();
        assert_eq!(closed.find(9999), Absent::Ignored, "reset behind the PING");
    }

    #[test]
    fn skipped_identifiers_are_remembered_as_gaps() {
        let mut closed = ClosedStreams::new(1);
        for (last, id) in [(0, 1), (1, 3), (3, 9), (9, 11)] {
            closed.insert_gap(last, id);
        }

        let skipped: Vec<_> = (1..=11).step_by(2).filter(|id| closed.find(*id) == Absent::Skipped).collect();
        assert_eq!(skipped, [5, 7]);

        for n in 5..100 {
            closed.insert_gap(4 * n + 1, 4 * n + 5);
        }
        assert_eq!(closed.gaps.len(), GAPS);
    }
}
