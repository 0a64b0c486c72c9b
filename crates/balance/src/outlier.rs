//! Outlier detection: counts failures in a row, ejects endpoints for a while, and lets them back (Envoy's algorithm for
//! consecutive errors). A state machine; it has no clock and no task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use route::traffic::OutlierDetection;

use crate::endpoint::State;

/// Failure without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or none to the application behind its node proxy.
    Connect,
    /// The connection or stream ended before an answer.
    Reset,
    /// No answer in time.
    Timeout,
}

/// Counts an answer. Returns true if the endpoint has now failed as often in a row as it may.
pub(crate) fn count_answer(state: &State, policy: &OutlierDetection, status: u16) -> bool {
    if policy.split_local_origin {
        clear(&state.consecutive_local);
    }
    count_status(state, policy, status, is_error(policy, status))
}

/// Counts a failure without an answer. Returns true if the endpoint has now failed as often in a row as it may.
pub(crate) fn count_failure(state: &State, policy: &OutlierDetection, failure: Failure) -> bool {
    if policy.split_local_origin {
        return reaches(&state.consecutive_local, policy.consecutive_local_origin_failures);
    }
    let status = match failure {
        Failure::Connect | Failure::Reset => 503,
        Failure::Timeout => 504,
    };
    // An error whatever statuses the user lists: there was no answer.
    count_status(state, policy, status, true)
}

/// Counts a connection that was made and has no answers: TCP.
pub(crate) fn count_connection(state: &State, policy: &OutlierDetection) {
    clear(&state.consecutive_local);
    if !policy.split_local_origin {
        clear(&state.consecutive_5xx);
        clear(&state.consecutive_gateway);
    }
}

fn count_status(state: &State, policy: &OutlierDetection, status: u16, is_error: bool) -> bool {
    if !is_error {
        clear(&state.consecutive_5xx);
        clear(&state.consecutive_gateway);
        return false;
    }
    let by_gateway = if matches!(status, 502..=504) {
        reaches(&state.consecutive_gateway, policy.consecutive_gateway_errors)
    } else {
        clear(&state.consecutive_gateway);
        false
    };
    reaches(&state.consecutive_5xx, policy.consecutive_5xx) || by_gateway
}

fn is_error(policy: &OutlierDetection, status: u16) -> bool {
    if policy.error_codes.is_empty() { (500..=599).contains(&status) } else { policy.error_codes.contains(&status) }
}

/// Adds one. At the limit it begins anew, so that an ejection that is refused is tried again after as many failures.
fn reaches(counter: &AtomicU32, limit: Option<u32>) -> bool {
    let Some(limit) = limit else { return false };
    let has_reached = counter.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= limit;
    if has_reached {
        counter.store(0, Ordering::Relaxed);
    }
    has_reached
}

/// Writes only where there is something to clear: most answers are good, and workers share the counter.
fn clear(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Ejections of one set of endpoints.
#[derive(Debug)]
pub(crate) struct Ejections {
    /// Endpoints that are ejected, or were not long ago.
    records: BTreeMap<Arc<str>, Record>,
    /// Time of the last sweep.
    swept: Instant,
}

#[derive(Debug, Default)]
struct Record {
    /// Number by which the base of the ejection time is multiplied.
    backoff: u32,
    ejected_at: Option<Instant>,
}

impl Ejections {
    /// No ejection; the first sweep is one interval later.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { records: BTreeMap::new(), swept: now }
    }

    /// Number of endpoints that are ejected.
    pub(crate) fn active(&self) -> usize {
        self.records.values().filter(|record| record.ejected_at.is_some()).count()
    }

    /// Ejects one of `total` endpoints. Returns false if it is ejected already or too many are.
    pub(crate) fn eject(&mut self, policy: &OutlierDetection, id: &Arc<str>, total: usize, now: Instant) -> bool {
        let active = self.active();
        let record = self.records.get(id);
        if record.is_some_and(|record| record.ejected_at.is_some()) || !policy.allows(active + 1, total) {
            return false;
        }
        let record = self.records.entry(Arc::clone(id)).or_default();
        let longest = OutlierDetection::MAX_EJECTION_TIME.max(policy.base_ejection_time);
        // Beyond the longest time a larger number would only make the way back longer.
        if policy.base_ejection_time.saturating_mul(record.backoff) < longest + policy.base_ejection_time {
            record.backoff += 1;
        }
        record.ejected_at = Some(now);
        true
    }

    /// Time of the next sweep.
    pub(crate) fn next_sweep(&self, policy: &OutlierDetection) -> Instant {
        self.swept + policy.interval
    }

    /// Makes all sweeps that are due, also several after a pause. Returns the endpoints whose ejection ends.
    ///
    /// A sweep ends ejections that have lasted long enough. Of an endpoint that was not ejected at a sweep it lowers the
    /// number of ejections by one.
    pub(crate) fn sweep(&mut self, policy: &OutlierDetection, now: Instant) -> Vec<Arc<str>> {
        let sweeps = periods(now.saturating_duration_since(self.swept), policy.interval);
        let (first, interval) = (self.swept, policy.interval);
        self.swept += interval.saturating_mul(sweeps);
        let mut back = Vec::new();
        self.records.retain(|id, record| {
            let mut healthy = sweeps;
            if let Some(at) = record.ejected_at {
                let end = at + policy.ejection_time(record.backoff);
                let wait = end.saturating_duration_since(first);
                // Number of the sweep that finds the time over: the first one at the end or behind it.
                let whole = periods(wait, interval);
                let number = (whole + u32::from(interval.saturating_mul(whole) < wait)).max(1);
                if number > sweeps {
                    return true;
                }
                record.ejected_at = None;
                back.push(Arc::clone(id));
                healthy = sweeps - number;
            }
            record.backoff = record.backoff.saturating_sub(healthy);
            record.backoff > 0
        });
        back
    }

    /// Forgets endpoints that are gone.
    pub(crate) fn retain(&mut self, is_present: impl Fn(&str) -> bool) {
        self.records.retain(|id, _| is_present(id));
    }

    /// Ends all ejections, because there is no policy any more.
    pub(crate) fn clear(&mut self) -> Vec<Arc<str>> {
        let records = std::mem::take(&mut self.records);
        records.into_iter().filter(|(_, record)| record.ejected_at.is_some()).map(|(id, _)| id).collect()
    }
}

/// Number of whole periods in a time.
fn periods(time: Duration, period: Duration) -> u32 {
    let number = time.as_nanos().checked_div(period.as_nanos()).unwrap_or_default();
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "outlier_tests.rs"]
mod tests;
