//! Faults that requests meet.

use std::time::Duration;

use kube_cluster::Verb;

use super::request::Asked;

/// Requests that meet a fault, and how many of them.
#[derive(Clone, Debug)]
pub struct When {
    pub verb: Verb,
    /// Plural of the kind; empty: all.
    pub plural: &'static str,
    /// Requests that pass before.
    pub after: usize,
    pub times: usize,
}

impl When {
    pub const fn next(verb: Verb) -> Self {
        Self { verb, plural: "", after: 0, times: 1 }
    }

    pub const fn always(verb: Verb) -> Self {
        Self { times: usize::MAX, ..Self::next(verb) }
    }

    #[must_use]
    pub const fn of(self, plural: &'static str) -> Self {
        Self { plural, ..self }
    }

    #[must_use]
    pub const fn after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    #[must_use]
    pub const fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Counts a request; returns true if it meets the fault.
    pub fn meets(&mut self, asked: &Asked) -> bool {
        let is_meant =
            asked.verb == Some(self.verb) && (self.plural.is_empty() || self.plural == asked.resource.plural);
        if !is_meant || self.times == 0 {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times = self.times.saturating_sub(1);
        true
    }
}

/// Fault of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// An answer with this status; `Retry-After` in seconds.
    Refuse(u16, Option<u64>),
    /// The object, or its namespace, is not there.
    NotFound,
    /// The connection ends without an answer.
    NoAnswer,
    /// Nothing comes until the fault is healed.
    Hang,
    /// The answer begins after this time.
    Slow(Duration),
    /// The answer is cut after this many bytes.
    Cut(usize),
    /// The answer comes in pieces of this size.
    Split(usize),
    /// Each event of a watch comes twice.
    Twice,
    /// A watch begins this many versions before the position that was asked for.
    Again(u64),
    /// This text is the answer, or a line of a watch before the next event.
    Garbage(&'static str),
    /// A watch says in its stream that its position is too old.
    ExpiredInStream,
}
