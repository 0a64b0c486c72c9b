//! One reaction to many events in a row: wait until they pause, but not for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Limits of a burst of events.
#[derive(Clone, Copy, Debug)]
pub struct Debounce {
    quiet: Duration,
    latest: Duration,
}

impl Debounce {
    /// A burst ends when nothing has happened for `quiet`, and `latest` after its first event at the latest.
    pub const fn new(quiet: Duration, latest: Duration) -> Self {
        Self { quiet, latest }
    }

    /// Begins a burst, with an event that has just happened.
    pub fn begin(self) -> Burst {
        Burst { quiet: self.quiet, deadline: Instant::now() + self.latest }
    }
}

/// A burst of events.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    quiet: Duration,
    deadline: Instant,
}

impl Burst {
    /// Longest time to wait for the next event; zero when the burst has to end.
    pub fn patience(&self) -> Duration {
        self.quiet.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits for the next event; `None` when the burst is over, and then `event` was dropped before it was ready.
    pub async fn next<T>(&self, event: impl Future<Output = T>) -> Option<T> {
        let patience = self.patience();
        // Checked first: a timeout lets an event pass that is ready, so that a burst would never end.
        if patience.is_zero() { None } else { tokio::time::timeout(patience, event).await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(10), Duration::from_millis(25));

    #[tokio::test(start_paused = true)]
    async fn a_burst_ends_when_events_pause_and_at_its_deadline_in_any_case() {
        let after = |millis| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            millis
        };

        let burst = DEBOUNCE.begin();
        assert_eq!(burst.next(after(9)).await, Some(9));
        assert_eq!(burst.next(after(9)).await, Some(9));
        assert_eq!(burst.next(after(9)).await, None, "27 ms after the first event");
        assert_eq!(burst.next(std::future::ready(1)).await, None, "an event that is ready is of the next burst");
        assert_eq!(DEBOUNCE.begin().next(after(11)).await, None, "a pause");
    }
}
