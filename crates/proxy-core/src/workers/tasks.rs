//! Tasks that belong together on one worker: run, counted, waited for, cut.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;

use futures::FutureExt as _;
use tokio::task::{JoinError, JoinSet};

/// Tasks of connections that panicked.
const PANICS: &str = "strake_connection_panics_total";

/// Tasks of one pod or listener on one worker; dropping them cuts them.
#[derive(Debug, Default)]
pub struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Tasks {
    /// Runs a task on this worker until it ends or is cut.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // Weak: the set owns its tasks, and drops them when it is dropped.
        let set = Rc::downgrade(&self.0);
        // The set keeps the memory of an ended task, 4 KiB of a connection, until its result is taken. So each task takes
        // those that have ended before it; the last one's is kept.
        let then_take = move |()| {
            if let Some(set) = set.upgrade() {
                take_ended(&mut set.borrow_mut());
            }
        };
        // `map` and no async block, which would hold `task` twice.
        self.0.borrow_mut().spawn_local(task.map(then_take));
    }

    /// Returns when no task is left.
    pub async fn ended(&self) {
        poll_fn(|cx| {
            loop {
                match std::task::ready!(self.0.borrow_mut().poll_join_next(cx)) {
                    Some(ended) => note(ended),
                    None => return std::task::Poll::Ready(()),
                }
            }
        })
        .await;
    }

    /// Tasks that have not ended.
    pub fn count(&self) -> usize {
        let mut set = self.0.borrow_mut();
        take_ended(&mut set);
        set.len()
    }

    /// Cuts all tasks; they are gone once [`ended`](Self::ended) returns.
    pub fn cut(&self) {
        self.0.borrow_mut().abort_all();
    }
}

/// Takes the results of tasks that have ended, and frees their memory with them.
fn take_ended(set: &mut JoinSet<()>) {
    while let Some(ended) = set.try_join_next() {
        note(ended);
    }
}

/// A task that panicked has ended one connection, which says nothing of it but that it was cut.
fn note(ended: Result<(), JoinError>) {
    if let Err(e) = ended
        && e.is_panic()
    {
        tracing::error!(error = %e, code = "panic", "the task of a connection has failed");
        metrics::counter!(PANICS).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    /// Tasks that end when their sender is dropped, or panic when it sends.
    fn waiting(tasks: &Tasks, number: usize) -> Vec<oneshot::Sender<()>> {
        let spawn = |_| {
            let (sender, end) = oneshot::channel();
            tasks.spawn(async move { assert!(end.await.is_err(), "told to panic") });
            sender
        };
        (0..number).map(spawn).collect()
    }

    /// Lets all tasks that can run do so: a `LocalSet` runs 61 of them in a turn.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn ended_tasks_keep_no_memory_though_no_other_is_spawned() {
        let checked = async {
            let tasks = Tasks::default();
            let senders = waiting(&tasks, 1000);
            settle().await;
            assert_eq!(tasks.0.borrow().len(), 1000);
            drop(senders);
            settle().await;
            assert!(tasks.0.borrow().len() <= 1, "{} kept", tasks.0.borrow().len());
            tasks.ended().await;
            assert_eq!(tasks.0.borrow().len(), 0);
        };
        LocalSet::new().run_until(checked).await;
    }

    #[tokio::test]
    async fn a_task_that_panics_is_taken_as_well_and_the_others_go_on() {
        let checked = async {
            let tasks = Tasks::default();
            let mut senders = waiting(&tasks, 3);
            senders.remove(0).send(()).unwrap();
            settle().await;
            drop(senders.remove(0));
            settle().await;
            // The one that goes on, and the last one that ended.
            assert_eq!(tasks.0.borrow().len(), 2);
            assert_eq!(tasks.count(), 1);
            tasks.cut();
            tasks.ended().await;
            assert_eq!(tasks.count(), 0);
        };
        LocalSet::new().run_until(checked).await;
    }

    #[tokio::test]
    async fn dropping_the_set_drops_its_tasks() {
        let checked = async {
            let tasks = Tasks::default();
            let mut senders = waiting(&tasks, 1);
            settle().await;
            drop(tasks);
            settle().await;
            assert!(senders.remove(0).is_closed());
        };
        LocalSet::new().run_until(checked).await;
    }
}
