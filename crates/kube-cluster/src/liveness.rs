//! State of all watches: for readiness, and to say when the API server is away.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

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
pub(crate) struct Watches {
    states: Arc<Mutex<Vec<State>>>,
    /// Time since which no watch is open; `None` while one is.
    away_since: Arc<watch::Sender<Option<Instant>>>,
}

impl Watches {
    pub(crate) fn new(count: usize) -> Self {
        let states = Arc::new(Mutex::new(vec![State::Starting; count]));
        let watches = Self { states, away_since: Arc::new(watch::Sender::new(None)) };
        watches.note(&watches.states.lock());
        watches
    }

    /// Says when the API server has been away for longer than a restart takes, and when it is back; ends never.
    pub(crate) async fn tell(self) {
        let mut changed = self.away_since.subscribe();
        // The sender is `self`, so that there always is a next state.
        while let Ok(since) = changed.wait_for(Option::is_some).await.map(|since| *since) {
            let since = since.unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(since + PATIENCE) => {}
                _ = changed.wait_for(Option::is_none) => continue,
            }
            tracing::warn!(
                code = "api_server_away",
                "no watch of the API server is open; what was read stays in force, and changes are not seen until it answers"
            );
            let _: Result<watch::Ref<'_, _>, _> = changed.wait_for(Option::is_none).await;
            tracing::info!(away_seconds = since.elapsed().as_secs(), "the API server answers again");
        }
    }

    fn note(&self, states: &[State]) {
        let is_open = states.is_empty() || states.contains(&State::Open);
        self.away_since.send_if_modified(|since| {
            if is_open != since.is_some() {
                return false;
            }
            *since = (!is_open).then(Instant::now);
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let seconds = if is_open { 0.0 } else { wall };
            metrics::gauge!("strake_api_server_away_since_seconds").set(seconds);
            true
        });
    }

    /// Returns true if every watch is open, or was a moment ago.
    pub(crate) fn are_alive(&self) -> bool {
        let states = self.states.lock();
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
        let mut states = self.watches.states.lock();
        if let Some(state) = states.get_mut(self.index) {
            *state = change(*state);
        }
        self.watches.note(&states);
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

    #[tokio::test(start_paused = true)]
    async fn the_api_server_is_away_while_no_watch_is_open() {
        let watches = Watches::new(2);
        let (first, second) = (watches.of(0), watches.of(1));
        let since = || *watches.away_since.borrow();
        let start = Instant::now();

        assert_eq!(since(), Some(start), "there never was one");
        first.open();
        assert_eq!(since(), None);
        second.interrupted();
        assert_eq!(since(), None, "the API server answers the other");
        tokio::time::advance(PATIENCE).await;
        first.interrupted();
        tokio::time::advance(PATIENCE).await;
        second.interrupted();
        assert_eq!(since(), Some(start + PATIENCE), "a further failure does not begin anew");
        second.open();
        assert_eq!(since(), None);
    }
}
