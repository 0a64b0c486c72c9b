//! Reason why a node's proxy has not acknowledged something, while time passes.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use graph::Missing;
use tokio::time::Instant;

/// Time that a proxy may take to answer before it is called silent. A healthy one answers within milliseconds, and
/// within a second or two when it has just connected to a large mesh.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Reason why a node's proxy has not acknowledged something, the worst last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unacked {
    /// The answer is outstanding since this time; the longer wait is worse.
    Waiting(Reverse<Instant>),
    /// No proxy is connected.
    Disconnected,
    /// The proxy rejected the response that it was in, with this message, which does not name it.
    RejectedInBatch(Arc<str>),
    /// The proxy rejected it, with this message.
    Rejected(Arc<str>),
}

impl Unacked {
    pub(super) const fn waiting(since: Instant) -> Self {
        Self::Waiting(Reverse(since))
    }

    /// Time since which an answer is outstanding.
    pub(super) const fn since(&self) -> Option<Instant> {
        match self {
            Self::Waiting(Reverse(since)) => Some(*since),
            Self::Disconnected | Self::RejectedInBatch(_) | Self::Rejected(_) => None,
        }
    }

    /// The reason as the condition gives it at this time.
    pub(super) fn at(&self, now: Instant) -> Missing {
        match self {
            Self::Waiting(Reverse(since)) if now >= *since + ANSWERS_WITHIN => Missing::Silent(ANSWERS_WITHIN),
            Self::Waiting(_) => Missing::Pending,
            Self::Disconnected => Missing::Disconnected,
            Self::RejectedInBatch(answer) => Missing::RejectedInBatch(Arc::clone(answer)),
            Self::Rejected(answer) => Missing::Rejected(Arc::clone(answer)),
        }
    }
}
