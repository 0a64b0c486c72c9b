//! The workers of the node proxy: which pods they serve, and which of them carries an accepted connection. What happens on
//! a connection is `proxy`'s.

mod accept;
mod dispatch;
mod dns;
mod nameservers;
mod worker;

pub use self::dns::DNS_CONNECTIONS;
use crate::inpod::{ListenerKind, Pod, PodListeners};
use crate::proxy::{Connection, Shared, WorkerContext};
use proxy_core::budget::Descriptors;
use proxy_core::workers::{COMMAND_TIMEOUT, Load, Workers};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;
use worker::Worker;

/// Commands to a worker.
pub enum Command {
    /// Accept the connections of a pod, and answer its questions.
    Start { pod: Arc<Pod>, listeners: PodListeners, done: oneshot::Sender<io::Result<()>> },
    /// Carry a connection that another worker has accepted.
    Carry(Handover),
    /// Cut everything of a pod, and close its listeners.
    Stop { pod: Arc<Pod>, done: oneshot::Sender<()> },
}

/// An accepted connection that no worker carries yet.
pub struct Handover {
    pod: Arc<Pod>,
    kind: ListenerKind,
    socket: TcpStream,
    client: SocketAddr,
    transparent: bool,
    /// Counts it for the worker that gets it.
    load: Load,
    descriptors: Descriptors,
}

impl Handover {
    /// Registers the socket with this worker's runtime.
    fn register(self) -> io::Result<Connection> {
        let Self { kind, socket, client, transparent, load, descriptors, .. } = self;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        Ok(Connection { kind, socket, client, transparent, load, descriptors })
    }
}

/// All workers of the node proxy. They end when this is dropped.
pub struct PodWorkers(Workers<Command>);

impl PodWorkers {
    /// Starts `count` threads, named `ztunnel-<n>`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let shared = shared.clone();
        let workers = Workers::start("ztunnel", count, move |handles| {
            let context = Rc::new(WorkerContext::new(shared.clone(), handles.own().load().clone()));
            Worker { handles, context, pods: RefCell::default(), draining: Cell::new(false) }
        });
        workers.map(Self)
    }

    /// The threads.
    pub const fn threads(&self) -> &Workers<Command> {
        &self.0
    }

    /// Gives a pod's listeners to the worker that `pod` belongs to.
    ///
    /// # Errors
    /// When a listener cannot be registered, the pod was stopped meanwhile, or the worker does not answer.
    pub async fn start_pod(&self, pod: Arc<Pod>, listeners: PodListeners) -> io::Result<()> {
        // Its listeners stay on one worker: single sockets, not one for each, because steering knows one listener of a
        // pod.
        let index = pod.serial as usize;
        self.0.ask(index, |done| Command::Start { pod, listeners, done }).await?
    }

    /// Cuts everything of a pod on all workers.
    pub async fn stop_pod(&self, pod: &Arc<Pod>) {
        // First: workers start nothing more for it while the commands are on their way.
        pod.stop();
        if self.0.ask_all(|done| Command::Stop { pod: pod.clone(), done }).await.is_err() {
            tracing::warn!(uid = pod.uid, waited = ?COMMAND_TIMEOUT, "a worker does not answer, the pod is not stopped on it yet");
        }
    }
}

impl fmt::Debug for PodWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PodWorkers").field("count", &self.0.count()).finish()
    }
}
