//! Tasks that belong together on one worker: run, counted, waited for, cut.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use tokio::task::{JoinError, JoinSet};

/// Tasks of connections that panicked.
const PANICS: &str = "strake_connection_panics_total";

/// Tasks of one pod or listener on one worker; dropping them cuts them.
#[derive(Debug, Default)]
pub struct Tasks(RefCell<JoinSet<()>>);

impl Tasks {
    /// Runs a task on this worker until it ends or is cut.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        // Results of ended tasks stay in the set until somebody takes them.
        let mut set = self.0.borrow_mut();
        while let Some(ended) = set.try_join_next() {
            note(ended);
        }
        set.spawn_local(task);
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
        while let Some(ended) = set.try_join_next() {
            note(ended);
        }
        set.len()
    }

    /// Cuts all tasks; they are gone once [`ended`](Self::ended) returns.
    pub fn cut(&self) {
        self.0.borrow_mut().abort_all();
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
