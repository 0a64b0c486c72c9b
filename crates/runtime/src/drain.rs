//! Tells all parts of a program that it is about to end, and until when they may take.
//! It ends nothing itself.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Starts the drain; see [`Watch`]. Dropping it without a start means no drain will come.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Option<Instant>>);

/// Sees the drain. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(watch::Receiver<Option<Instant>>);

/// A trigger and the first of its watches.
#[must_use]
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(None);
    (Trigger(sender), Watch(receiver))
}

impl Trigger {
    /// From now on nothing new is taken; what is open may finish within `grace`.
    /// A second start can only shorten the grace.
    pub fn start(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.0.send_if_modified(|current| {
            let sooner = current.is_none_or(|c| deadline < c);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
    }

    /// Another watch.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }
}

impl Watch {
    /// Has the drain begun?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the drain to begin and returns the instant by which all must be over.
    /// Never returns when the trigger was dropped without a start. Safe to drop at any point.
    pub async fn started(&mut self) -> Instant {
        loop {
            if let Some(deadline) = *self.0.borrow_and_update() {
                return deadline;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the drain's deadline has passed, also one that is moved forward meanwhile.
    pub async fn expired(&mut self) {
        let mut deadline = self.started().await;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return,
                changed = self.0.changed() => {
                    // Copied out: the lock must not live across the wait below.
                    let sooner = *self.0.borrow();
                    match (changed, sooner) {
                        (Ok(()), Some(sooner)) => deadline = sooner,
                        _ => return tokio::time::sleep_until(deadline).await,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_watch_sees_the_start_and_its_deadline() {
        let (trigger, mut first) = channel();
        let mut second = trigger.watch();

        trigger.start(Duration::from_secs(5));

        let expected = Instant::now() + Duration::from_secs(5);
        assert_eq!(first.started().await, expected);
        assert_eq!(second.started().await, expected);
        assert!(first.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_start_can_only_shorten_the_grace() {
        let (trigger, mut watch) = channel();
        let begin = Instant::now();

        trigger.start(Duration::from_secs(5));
        trigger.start(Duration::from_secs(50));
        trigger.start(Duration::from_secs(1));
        watch.expired().await;

        assert_eq!(begin.elapsed().as_secs(), 1);
    }
}
