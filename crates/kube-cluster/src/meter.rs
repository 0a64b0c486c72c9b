//! Metrics of one reader.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube_types::Kind;

use crate::answer::ApiError;

/// Metrics of the reader of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter(&'static str);

impl Meter {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self(kind.name())
    }

    /// A list is complete.
    pub(crate) fn listed(self) {
        metrics::counter!("strake_api_lists_total", "kind" => self.0).increment(1);
    }

    /// A watch has ended, or could not be opened; `None`: the API server has ended it in good order.
    pub(crate) fn watch_ended(self, error: Option<&ApiError>) {
        let reason = match error {
            None => "ended",
            Some(error) if error.is_expired() => "expired",
            Some(error) if error.is_denied() => "denied",
            Some(ApiError::Refused(_)) => "refused",
            Some(ApiError::Timeout(_)) => "silent",
            Some(ApiError::Unreachable(_)) => "broken",
            Some(ApiError::Invalid(_)) => "invalid",
        };
        metrics::counter!("strake_api_watch_ends_total", "kind" => self.0, "reason" => reason).increment(1);
    }

    /// Something has arrived: a list, an event or a bookmark. What is known now is up to date.
    pub(crate) fn heard(self, now: SystemTime) {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics::gauge!("strake_api_last_event_timestamp_seconds", "kind" => self.0).set(seconds);
    }

    /// Number of objects in force, and of those that cannot be decoded as they are now.
    pub(crate) fn objects(self, in_force: usize, unreadable: usize) {
        metrics::gauge!("strake_api_objects", "kind" => self.0).set(in_force as f64);
        metrics::gauge!("strake_api_unreadable_objects", "kind" => self.0).set(unreadable as f64);
    }

    /// Changes waited for so long until there was room for them.
    pub(crate) fn delivered(self, waited: Duration) {
        metrics::histogram!("strake_api_delivery_seconds", "kind" => self.0).record(waited.as_secs_f64());
    }
}
