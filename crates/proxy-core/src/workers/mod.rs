//! Threads that carry connections. Each has everything a connection needs; a connection lives on one of them from its
//! first byte to its last. What a worker does is its program's; see [`Worker`].

mod accept;
mod handle;
mod load;
mod tasks;
mod thread;

use futures::future::join_all;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use accept::{Acceptor, accept};
pub use handle::{WorkerHandle, WorkerHandles};
pub use load::{Load, LoadCounter};
pub use tasks::Tasks;

use handle::Lost;

/// Messages that may wait for a worker. When full, accepted sockets stay where they were accepted.
const MESSAGES: usize = 1024;

/// Time within which every worker must answer a ping, or the proxy is not ready.
pub const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a worker has to answer a command.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// A program's part of one worker. It is made on the worker's thread, and stays there.
pub trait Worker: Sized + 'static {
    /// Sent to it by other threads.
    type Command: Send + 'static;

    /// Handles a command; what takes time runs as a task.
    fn handle(self: &Rc<Self>, command: Self::Command);

    /// Passes on what open connections have counted. Called once a second.
    fn flush(&self);

    /// Stops accepting, and waits until no connection is left or the drain's deadline has passed; then cuts what is left.
    /// Returns how many connections it has cut.
    fn drain(self: Rc<Self>) -> impl Future<Output = usize>;
}

/// Messages to a worker's thread.
enum Message<C> {
    /// To be answered at once: the worker lives.
    Ping(oneshot::Sender<()>),
    /// To be answered with the number of connections that were cut.
    Drain(oneshot::Sender<usize>),
    Command(C),
}

/// All workers. They end when this is dropped.
#[derive(Debug)]
pub struct Workers<C> {
    handles: Arc<[WorkerHandle<C>]>,
    lost: watch::Receiver<Option<usize>>,
}

impl<C: Send + 'static> Workers<C> {
    /// Starts `count` threads, at least one, named `<name>-<n>`. `make` makes each worker on its own thread.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start<W>(
        name: &str,
        count: usize,
        make: impl Fn(WorkerHandles<C>) -> W + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        W: Worker<Command = C>,
    {
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (messages, receiver) = mpsc::channel(MESSAGES);
                (WorkerHandle::new(messages), receiver)
            })
            .unzip();
        // All channels exist before the first thread starts: each worker sees all others from its first connection on.
        let handles: Arc<[_]> = handles.into();
        let (lost, losses) = watch::channel(None);
        let make = Arc::new(make);
        for (index, messages) in receivers.into_iter().enumerate() {
            let (seen, make) = (WorkerHandles::new(index, handles.clone(), lost.clone()), make.clone());
            let lost = Lost { index, lost: lost.clone(), only_in_panic: false };
            // One after the other, each with its runtime: an error here means too few descriptors or threads.
            thread::start(format!("{name}-{index}"), seen, messages, lost, move |seen| make(seen))?;
        }
        Ok(Self { handles, lost: losses })
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Returns the index of a worker that has ended, or can no longer accept. Waits while all is well.
    pub async fn lost(&self) -> usize {
        let mut lost = self.lost.clone();
        loop {
            // Also a loss that was reported before this call.
            if let Some(index) = *lost.borrow_and_update() {
                return index;
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns true when every worker answers within [`PING_TIMEOUT`].
    pub async fn answer(&self) -> bool {
        let pings = self.handles.iter().map(|worker| async {
            let (sender, answer) = oneshot::channel();
            worker.messages.send(Message::Ping(sender)).await.is_ok() && answer.await.is_ok()
        });
        // The queue counts too: a worker whose 1024 messages wait is as bad as one that hangs.
        let answers = timeout(PING_TIMEOUT, join_all(pings)).await;
        answers.is_ok_and(|answers| answers.into_iter().all(|answered| answered))
    }

    /// Sends a command to worker `index` (modulo their number), and returns its answer.
    ///
    /// # Errors
    /// When the worker has ended, or does not answer within [`COMMAND_TIMEOUT`].
    pub async fn ask<T>(&self, index: usize, command: impl FnOnce(oneshot::Sender<T>) -> C) -> io::Result<T> {
        // Serial numbers of pods are consecutive, so pods are spread evenly.
        let worker = &self.handles[index % self.handles.len()];
        let (sender, answer) = oneshot::channel();
        let ended = || io::Error::other("the worker has ended");
        let asked = async {
            worker.messages.send(Message::Command(command(sender))).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())
        };
        timeout(COMMAND_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends a command to every worker, and returns when all have answered. One that has ended counts as an answer.
    ///
    /// # Errors
    /// When a worker does not answer within [`COMMAND_TIMEOUT`].
    pub async fn ask_all(&self, command: impl Fn(oneshot::Sender<()>) -> C) -> io::Result<()> {
        let all = self.handles.iter().map(|worker| async {
            let (sender, answer) = oneshot::channel();
            if worker.messages.send(Message::Command(command(sender))).await.is_ok() {
                let _ = answer.await;
            }
        });
        timeout(COMMAND_TIMEOUT, join_all(all)).await.map(drop).map_err(|_| late())
    }

    /// Stops accepting and waits for connections to end; returns how many were cut at the deadline.
    pub async fn drain(&self) -> usize {
        let all = self.handles.iter().map(|worker| async {
            let (sender, done) = oneshot::channel();
            if worker.messages.send(Message::Drain(sender)).await.is_err() {
                // Its connections ended with it.
                return 0;
            }
            done.await.unwrap_or(0)
        });
        join_all(all).await.into_iter().sum()
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the worker does not answer")
}
