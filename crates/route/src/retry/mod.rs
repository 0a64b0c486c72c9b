//! Retries: which failures are tried again, how often, and after how long. It sends nothing and counts nothing; budgets and
//! the body that a retry needs are the caller's.

mod on;

use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;

pub use on::{Condition, RetryOn};

use crate::grpc;

/// Base of the pause before a retry (`base_interval` of Envoy).
pub const BASE_PAUSE: Duration = Duration::from_millis(25);

/// Longest pause, in multiples of the base.
const MAX_PAUSE_FACTOR: u32 = 10;

/// Endpoints that are drawn to find one that was not tried yet; after them one may be tried again
/// (`host_selection_retry_max_attempts` as istiod sets it).
pub const HOST_SELECTION_ATTEMPTS: u32 = 5;

/// Policy of a route for requests that fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Number of retries; with the first try there are so many and one requests at most.
    pub attempts: u32,
    pub on: RetryOn,
    /// Time for each try. `None`: what is left of the time for the whole request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Duration>,
    /// Base of the pause.
    pub base_pause: Duration,
    /// Prefers endpoints that were not tried yet; see [`HOST_SELECTION_ATTEMPTS`].
    pub avoid_previous_hosts: bool,
    /// After two tries in one locality the next one is tried.
    pub other_localities: bool,
}

impl Default for RetryPolicy {
    /// Istio's policy for routes that have none.
    fn default() -> Self {
        Self {
            attempts: 2,
            on: RetryOn::default(),
            per_try_timeout: None,
            base_pause: BASE_PAUSE,
            avoid_previous_hosts: true,
            other_localities: false,
        }
    }
}

/// End of one try, before any part of an answer was sent to the client. Nothing is retried later.
#[derive(Clone, Copy, Debug)]
pub enum TryEnd<'a> {
    /// The head of an answer.
    Answer { status: u16, headers: &'a HeaderMap },
    /// No connection to the endpoint: refused, not reachable, timed out, or a tunnel whose CONNECT was not answered with 200.
    ConnectFailure,
    /// The endpoint refused the stream before it did anything (`REFUSED_STREAM`, or a GOAWAY below it).
    RefusedStream,
    /// The connection or stream ended. `sent` is true if a part of the request had been sent.
    Reset { sent: bool },
    /// The time for one try is over.
    TryTimeout,
    /// A limit of connections or requests of this proxy. Never retried.
    Overflow,
}

/// Decision after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The failure is not one that is retried, or none: the client gets it.
    Done,
    /// It would be retried, but all attempts are used: the client gets it, with the flag `URX`.
    Exhausted,
    /// Another try after a pause.
    Retry { pause: Duration },
}

impl RetryPolicy {
    /// Decides after a try. `retries` is the number of retries before it, `random` draws the pause.
    pub fn verdict(&self, retries: u32, end: TryEnd<'_>, random: u64) -> Verdict {
        if self.attempts == 0 || !self.on.includes(end) {
            return Verdict::Done;
        }
        if retries >= self.attempts {
            return Verdict::Exhausted;
        }
        Verdict::Retry { pause: self.pause(retries + 1, random) }
    }

    /// Pause before a retry, counted from 1: less than base x (2^retry - 1), and less than ten times the base.
    fn pause(&self, retry: u32, random: u64) -> Duration {
        let factor = 2u32.saturating_pow(retry).saturating_sub(1).min(MAX_PAUSE_FACTOR);
        let bound = u64::try_from(self.base_pause.saturating_mul(factor).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.checked_rem(bound).unwrap_or_default())
    }
}

impl RetryOn {
    /// Returns true if a try that ended so is retried.
    pub fn includes(&self, end: TryEnd<'_>) -> bool {
        use Condition as On;
        match end {
            TryEnd::Overflow => false,
            TryEnd::Answer { status, headers } => self.includes_answer(status, headers),
            // To a client a failure without answer is a 503.
            TryEnd::ConnectFailure => {
                let sent_nothing = [On::ConnectFailure, On::ResetBeforeRequest];
                self.has_any(&sent_nothing) || self.has_any(&[On::Status5xx, On::GatewayError, On::Reset])
            }
            TryEnd::RefusedStream => self.has_any(&[On::Status5xx, On::GatewayError, On::Reset, On::RefusedStream]),
            TryEnd::Reset { sent } => {
                self.has_any(&[On::Status5xx, On::GatewayError, On::Reset])
                    || !sent && self.has_any(&[On::ResetBeforeRequest])
            }
            TryEnd::TryTimeout => self.has_any(&[On::Status5xx, On::GatewayError, On::Reset]),
        }
    }

    fn includes_answer(&self, status: u16, headers: &HeaderMap) -> bool {
        use Condition as On;
        // The answer of a rate limit, which further requests make worse.
        if headers.contains_key("x-envoy-ratelimited") {
            return self.has_any(&[On::EnvoyRateLimited]);
        }
        let by_status = match status {
            502..=504 => self.has_any(&[On::Status5xx, On::GatewayError]),
            500..=599 => self.has_any(&[On::Status5xx]),
            409 => self.has_any(&[On::Retriable4xx]),
            _ => false,
        };
        by_status || self.statuses().contains(&status) || self.includes_grpc(headers)
    }

    /// Decides by the status of an answer without messages: one behind messages is in its trailers, when it is too late.
    fn includes_grpc(&self, headers: &HeaderMap) -> bool {
        let condition = match grpc::status_in(headers) {
            Some(1) => Condition::Cancelled,
            Some(4) => Condition::DeadlineExceeded,
            Some(8) => Condition::ResourceExhausted,
            Some(13) => Condition::Internal,
            Some(14) => Condition::Unavailable,
            Some(_) | None => return false,
        };
        self.has_any(&[condition])
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
