//! State of all watches, for readiness.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time that a watch may be interrupted before it counts as lost: the API server ends every watch after some minutes, and it
/// is opened again in milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// State of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There never was one.
    Starting,
    Open,
    /// Interrupted, or not needed for a time.
    Until(Instant),
}

/// States of all watches of a source. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Watches(Arc<Mutex<Vec<State>>>);

impl Watches {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(vec![State::Starting; count])))
    }

    /// Returns true if every watch is open, or was a moment ago.
    pub(crate) fn are_alive(&self) -> bool {
        let states = self.0.lock();
        states.iter().all(|state| match state {
            State::Starting => false,
            State::Open => true,
            State::Until(until) => Instant::now() < *until,
        })
    }

    /// The watch of one reader.
    pub(crate) fn of(&self, index: usize) -> Liveness {
        Liveness { watches: self.clone(), index }
    }
}

/// State of one watch.
#[derive(Debug)]
pub(crate) struct Liveness {
    watches: Watches,
    index: usize,
}

impl Liveness {
    /// The API server answers.
    pub(crate) fn open(&self) {
        self.set(|_| State::Open);
    }

    /// The watch has ended. It counts as alive for a while.
    pub(crate) fn interrupted(&self) {
        self.set(|state| match state {
            State::Open => State::Until(Instant::now() + PATIENCE),
            // The time that is left is not prolonged: a server that takes connections and closes them would count as
            // alive for ever.
            State::Starting | State::Until(_) => state,
        });
    }

    /// There is nothing to watch for this long.
    pub(crate) fn idle(&self, pause: Duration) {
        // The pause, and then the time that the next look may take.
        self.set(|_| State::Until(Instant::now() + pause + PATIENCE));
    }

    fn set(&self, change: impl Fn(State) -> State) {
        let mut states = self.watches.0.lock();
        if let Some(state) = states.get_mut(self.index) {
            *state = change(*state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_source_is_alive_while_every_watch_is_open_or_was_a_moment_ago() {
        let watches = Watches::new(2);
        let (first, second) = (watches.of(0), watches.of(1));

        first.open();
        assert!(!watches.are_alive(), "one has not begun");
        second.open();
        assert!(watches.are_alive());
        second.interrupted();
        assert!(watches.are_alive());
        tokio::time::advance(PATIENCE).await;
        assert!(!watches.are_alive());
        second.interrupted();
        assert!(!watches.are_alive(), "a further failure is no sign of life");
        second.idle(PATIENCE);
        tokio::time::advance(PATIENCE).await;
        assert!(watches.are_alive());
    }
}
