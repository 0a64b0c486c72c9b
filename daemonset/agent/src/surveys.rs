//! One survey of the kernel's links and of the node's processes for all pods that are proved at about the same time. It judges
//! nothing; see `node::proof`.

use std::sync::Arc;

use ebpf_loader::{Steering, Survey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::cgroups::{CgroupTree, Member};
use crate::described::described;
use crate::metrics;

/// Facts that all pods of the node share. Each part may be unreadable by itself.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The kernel's links.
    pub links: Result<Arc<Survey>, String>,
    /// The node's processes and their cgroups.
    pub members: Result<Arc<Vec<Member>>, String>,
}

/// A survey of one moment.
#[derive(Debug, Clone)]
struct Taken {
    /// Everything in it is as it was then or later.
    begun: Instant,
    outcome: Shared,
}

impl Shared {
    fn unreadable(reason: &str) -> Self {
        Self { links: Err(reason.to_owned()), members: Err(reason.to_owned()) }
    }
}

/// Asks for surveys; clones share them.
#[derive(Debug, Clone)]
pub struct Surveys {
    /// One request is enough for all who wait: a second one finds the queue full.
    ask: mpsc::Sender<()>,
    taken: watch::Receiver<Option<Taken>>,
}

impl Surveys {
    /// Starts the task that takes them, one at a time. It ends with the last clone. Needs a tokio runtime.
    pub fn of(steering: Arc<Steering>, tree: CgroupTree) -> Self {
        Self::taken_by(move || Shared {
            links: steering.survey().map(Arc::new).map_err(|error| described(&error)),
            members: tree.members().map(Arc::new).map_err(|error| error.to_string()),
        })
    }

    fn taken_by(survey: impl Fn() -> Shared + Send + Sync + 'static) -> Self {
        let (ask, asked) = mpsc::channel(1);
        let (give, taken) = watch::channel(None);
        tokio::spawn(work(Arc::new(survey), asked, give));
        Self { ask, taken }
    }

    /// The kernel's links as they were at `moment` or later.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Reason why they cannot be listed, for a reader.
    pub async fn since(&self, moment: Instant) -> Result<Arc<Survey>, String> {
        self.shared_since(moment).await.links
    }

    /// Links and processes as they were at `moment` or later; taken now when no survey is that young. However many ask, at
    /// most the one that is under way and one more are waited for.
    ///
    /// Cancel-safe.
    pub async fn shared_since(&self, moment: Instant) -> Shared {
        let young = |taken: &Option<Taken>| taken.as_ref().is_some_and(|taken| taken.begun >= moment);
        // A receiver of its own, so that waiting here marks nothing as seen for others.
        let mut taken = self.taken.clone();
        if !young(&taken.borrow()) {
            // Full: a request waits that nobody has begun with, so that its answer is young enough for this one too.
            let _: Result<(), mpsc::error::TrySendError<()>> = self.ask.try_send(());
        }
        match taken.wait_for(young).await.as_deref() {
            Ok(Some(taken)) => taken.outcome.clone(),
            Ok(None) | Err(_) => Shared::unreadable("the task that surveys the node has stopped"),
        }
    }
}

async fn work(
    survey: Arc<dyn Fn() -> Shared + Send + Sync>,
    mut asked: mpsc::Receiver<()>,
    give: watch::Sender<Option<Taken>>,
) {
    while asked.recv().await.is_some() {
        // Before the survey: what it finds is as it was then or later.
        let begun = Instant::now();
        let survey = survey.clone();
        let outcome = match tokio::task::spawn_blocking(move || survey()).await {
            Ok(outcome) => outcome,
            Err(error) => Shared::unreadable(&error.to_string()),
        };
        metrics::surveyed(begun.elapsed());
        // `send_replace` works without receivers, too: somebody may subscribe by a clone later.
        give.send_replace(Some(Taken { begun, outcome }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Surveys of which each says when it begins and ends with a permit.
    struct Bench {
        surveys: Surveys,
        begun: mpsc::UnboundedReceiver<()>,
        permit: std::sync::mpsc::Sender<()>,
    }

    impl Bench {
        fn start() -> Self {
            let (permit, permits) = std::sync::mpsc::channel();
            let permits = parking_lot::Mutex::new(permits);
            let (begin, begun) = mpsc::unbounded_channel();
            let surveys = Surveys::taken_by(move || {
                begin.send(()).unwrap();
                permits.lock().recv().unwrap();
                Shared::unreadable("something")
            });
            Self { surveys, begun, permit }
        }
    }

    #[tokio::test]
    async fn whoever_asks_at_the_same_time_shares_a_survey() {
        let Bench { surveys, mut begun, permit } = Bench::start();
        let now = Instant::now();

        permit.send(()).unwrap();
        let outcomes = futures::future::join_all((0..40).map(|_| surveys.since(now))).await;
        surveys.since(now).await.unwrap_err();

        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_err_and(|reason| reason.contains("something"))));
        begun.recv().await.unwrap();
        assert!(begun.try_recv().is_err(), "a second survey although the first is young enough");
    }

    #[tokio::test]
    async fn a_survey_that_had_begun_before_does_not_answer_a_later_question() {
        let Bench { surveys, mut begun, permit } = Bench::start();
        let asked = surveys.clone();
        let early = tokio::spawn(async move { asked.since(Instant::now()).await });
        begun.recv().await.unwrap();

        let asked = surveys.clone();
        let late = tokio::spawn(async move { asked.since(Instant::now()).await });
        tokio::task::yield_now().await;
        permit.send(()).unwrap();
        early.await.unwrap().unwrap_err();
        begun.recv().await.expect("another survey");
        assert!(!late.is_finished());
        permit.send(()).unwrap();

        late.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn a_survey_that_breaks_off_is_no_survey_and_not_the_last() {
        let Bench { surveys, mut begun, permit } = Bench::start();
        drop(permit);

        for _ in 0..2 {
            let reason = surveys.since(Instant::now()).await.unwrap_err();
            assert!(reason.contains("panic"), "{reason}");
            begun.recv().await.unwrap();
        }
    }
}
