//! Workers as other threads see them, and as each of them sees the others.

use super::{Load, LoadCounter, Message};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Connections by which a worker may be busier than the least busy one before it gives connections away. Small
/// differences are not worth a wake-up of another thread, and a second tunnel: with 1, every other one of sixteen
/// short connections at a time was given away.
const SLACK: usize = 4;

/// A worker, seen from other threads.
#[derive(Debug)]
pub struct WorkerHandle<C> {
    pub(super) messages: mpsc::Sender<Message<C>>,
    load: LoadCounter,
}

impl<C> WorkerHandle<C> {
    pub(super) fn new(messages: mpsc::Sender<Message<C>>) -> Self {
        Self { messages, load: LoadCounter::default() }
    }

    /// Number of connections that it carries.
    pub const fn load(&self) -> &LoadCounter {
        &self.load
    }

    /// Counts one more connection.
    pub fn add_load(&self) -> Load {
        self.load.add()
    }

    /// Sends a command without waiting.
    ///
    /// # Errors
    /// Returns the command when 1024 messages wait there already, or the worker has ended.
    pub fn try_send(&self, command: C) -> Result<(), C> {
        match self.messages.try_send(Message::Command(command)).map_err(mpsc::error::TrySendError::into_inner) {
            Err(Message::Command(command)) => Err(command),
            // What comes back is what was sent.
            Ok(()) | Err(Message::Ping(_) | Message::Drain(_)) => Ok(()),
        }
    }
}

/// All workers, as one of them sees them.
#[derive(Debug)]
pub struct WorkerHandles<C> {
    index: usize,
    all: Arc<[WorkerHandle<C>]>,
    /// Gets the index of a worker that can no longer do its work.
    lost: watch::Sender<Option<usize>>,
}

impl<C> WorkerHandles<C> {
    pub(super) const fn new(index: usize, all: Arc<[WorkerHandle<C>]>, lost: watch::Sender<Option<usize>>) -> Self {
        Self { index, all, lost }
    }

    /// This worker.
    pub fn own(&self) -> &WorkerHandle<C> {
        &self.all[self.index]
    }

    /// Returns the worker that should carry a connection which this one has accepted and counted, if it is another.
    pub fn less_busy(&self) -> Option<&WorkerHandle<C>> {
        let least = self.all.iter().min_by_key(|worker| worker.load.get())?;
        (self.own().load.get() > least.load.get() + 1 + SLACK).then_some(least)
    }

    /// Does `work`, which the worker cannot do without: a panic in it counts as the loss of the worker.
    pub async fn essential(&self, work: impl Future<Output = ()>) {
        let _guard = Lost { index: self.index, lost: self.lost.clone(), only_in_panic: true };
        work.await;
    }
}

/// Reports a worker as lost when it is dropped.
pub(super) struct Lost {
    pub(super) index: usize,
    pub(super) lost: watch::Sender<Option<usize>>,
    /// A task may end; a thread may not.
    pub(super) only_in_panic: bool,
}

impl Drop for Lost {
    fn drop(&mut self) {
        if !self.only_in_panic || std::thread::panicking() {
            // Also without a receiver: who asks later sees the loss.
            self.lost.send_replace(Some(self.index));
        }
    }
}
