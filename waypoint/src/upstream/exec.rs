//! Spawns the tasks of an HTTP connection on the worker's thread.

use std::future::Future;

/// Executor of the thread that calls it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExec;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
