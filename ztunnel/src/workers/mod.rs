//! The threads that carry connections. Each has everything a connection needs; a connection is born and
//! dies on one of them. What happens on a connection is `proxy`'s.

mod accept;
mod dispatch;
mod thread;
mod worker;

use crate::budget::Descriptors;
use crate::inpod::{ListenerKind, Listening, Pod};
use crate::proxy::{Connection, Load, LoadCounter, Shared};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that may wait for a worker. When full, sockets stay where they were accepted.
const COMMANDS: usize = 1024;
/// How long a worker may take to answer a ping before the proxy is not ready.
pub const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a worker may take to start or stop a pod.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// What a worker is told.
pub enum Command {
    /// Answer: the worker lives.
    Ping(oneshot::Sender<()>),
    /// Accept the connections of a pod.
    Start { pod: Arc<Pod>, listeners: Vec<(ListenerKind, Listening)>, done: oneshot::Sender<std::io::Result<()>> },
    /// Carry a connection that another worker has accepted.
    Take(Handover),
    /// Cut everything of a pod, and close its listeners.
    Stop { pod: Arc<Pod>, done: oneshot::Sender<()> },
    /// Stop accepting; answer when nothing is left or the drain's deadline has passed.
    Drain { done: oneshot::Sender<usize> },
}

/// An accepted connection that no worker carries yet.
pub struct Handover {
    pub pod: Arc<Pod>,
    kind: ListenerKind,
    socket: TcpStream,
    peer: SocketAddr,
    transparent: bool,
    /// Counts it for the worker that gets it.
    load: Load,
    descriptors: Descriptors,
}

impl Handover {
    /// Puts it on this worker.
    fn arrive(self) -> std::io::Result<Connection> {
        let Self { kind, socket, peer, transparent, load, descriptors, .. } = self;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        Ok(Connection { kind, socket, peer, transparent, load, descriptors })
    }
}

/// A worker, seen from other threads.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    load: LoadCounter,
}

impl Handle {
    /// Connections it carries.
    pub fn load(&self) -> usize {
        self.load.get()
    }

    /// Counts one more.
    pub fn add_load(&self) -> Load {
        self.load.add()
    }

    /// Gives a connection to this worker, or gives it back when too much waits there already.
    pub fn hand_over(&self, connection: Handover) -> Result<(), Handover> {
        self.commands.try_send(Command::Take(connection)).map_err(|e| match e.into_inner() {
            Command::Take(c) => c,
            Command::Ping(_) | Command::Start { .. } | Command::Stop { .. } | Command::Drain { .. } => {
                unreachable!("what comes back is what was sent")
            }
        })
    }
}

/// All workers. They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Arc<[Handle]>,
    lost: watch::Receiver<Option<usize>>,
}

impl Workers {
    /// Starts `count` threads, named `ztunnel-<n>`.
    pub fn start(count: usize, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (commands, receiver) = mpsc::channel(COMMANDS);
                (Handle { commands, load: LoadCounter::default() }, receiver)
            })
            .unzip();
        let handles: Arc<[Handle]> = handles.into();
        let (tell, lost) = watch::channel(None);
        for (index, receiver) in receivers.into_iter().enumerate() {
            thread::start(index, shared.clone(), handles.clone(), receiver, tell.clone())?;
        }
        Ok(Self { handles, lost })
    }

    /// Returns when a worker has ended, or can no longer accept: which one. Never while all is well.
    pub async fn lost(&self) -> usize {
        let mut lost = self.lost.clone();
        loop {
            if let Some(index) = *lost.borrow_and_update() {
                return index;
            }
            if lost.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Whether every worker answers within [`PING_TIMEOUT`].
    pub async fn answer(&self) -> bool {
        let pings = self.handles.iter().map(|h| async {
            let (tell, told) = oneshot::channel();
            h.commands.send(Command::Ping(tell)).await.is_ok() && told.await.is_ok()
        });
        let all = futures::future::join_all(pings);
        tokio::time::timeout(PING_TIMEOUT, all).await.is_ok_and(|answers| answers.into_iter().all(|a| a))
    }

    /// Gives a pod's listeners to the worker that `pod` belongs to.
    pub async fn start_pod(&self, pod: Arc<Pod>, listeners: Vec<(ListenerKind, Listening)>) -> std::io::Result<()> {
        let home = &self.handles[pod.serial as usize % self.handles.len()];
        let (done, told) = oneshot::channel();
        let gone = || std::io::Error::other("the worker has ended");
        let started = async {
            home.commands.send(Command::Start { pod, listeners, done }).await.map_err(|_| gone())?;
            told.await.map_err(|_| gone())?
        };
        let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the worker does not answer");
        tokio::time::timeout(COMMAND_TIMEOUT, started).await.unwrap_or_else(|_| Err(late()))
    }

    /// Cuts everything of a pod on all workers.
    pub async fn stop_pod(&self, pod: &Arc<Pod>) {
        pod.stop();
        let all = self.handles.iter().map(|h| async {
            let (done, told) = oneshot::channel();
            if h.commands.send(Command::Stop { pod: pod.clone(), done }).await.is_ok() {
                let _ = told.await;
            }
        });
        if tokio::time::timeout(COMMAND_TIMEOUT, futures::future::join_all(all)).await.is_err() {
            tracing::warn!(uid = pod.uid, waited = ?COMMAND_TIMEOUT, "a worker does not answer, the pod is not stopped on it yet");
        }
    }

    /// Ends accepting and waits for connections to end; returns how many were cut at the deadline.
    pub async fn drain(&self) -> usize {
        let all = self.handles.iter().map(|h| async {
            let (done, told) = oneshot::channel();
            if h.commands.send(Command::Drain { done }).await.is_err() {
                return 0;
            }
            told.await.unwrap_or(0)
        });
        futures::future::join_all(all).await.into_iter().sum()
    }
}
