//! The pods that proxies are to serve, and what each connection has acknowledged. It owns the queues, not the sockets.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::{ConnectionId, DEADLINE, Peer};
use crate::message::{PodId, WorkloadInfo};

/// A pod as the agent describes it to proxies.
#[derive(Debug, Clone)]
pub struct Pod {
    pub uid: PodId,
    pub info: WorkloadInfo,
    /// Kept open as long as the pod is registered. `None`: not found yet, a proxy that has the pod keeps it.
    pub netns: Option<Arc<OwnedFd>>,
}

/// Reason why a pod was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// No proxy is connected; the pod is in the snapshot of the next one.
    #[error("no ztunnel connection")]
    NoConnection,
    /// The proxy's own words, usually that it cannot listen.
    #[error("the proxy refused the pod: {reason}")]
    Refused { reason: String },
    /// The connection ended before the answer; the one before it may have taken over.
    #[error("the connection to the proxy ended before it answered")]
    Lost,
    /// [`super::QUEUE_DEPTH`] requests are waiting and the proxy takes none.
    #[error("the proxy takes no requests")]
    Busy,
    /// [`Pod::netns`] is needed to add a pod.
    #[error("the network namespace of the pod is not known")]
    NoNetns,
}

/// Reason why a departure is not acknowledged by every proxy. The pod is out of the registry in any case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DelError {
    #[error("the proxy refused to drop the pod: {reason}")]
    Refused { reason: String },
    /// The connection ended before the answer. The process may live on and serve the pod until its next connection has the
    /// snapshot.
    #[error("the connection to the proxy ended before it answered")]
    Lost,
    #[error("the proxy takes no requests")]
    Busy,
}

/// One live connection, newest last.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionStatus {
    pub peer: Peer,
    /// The snapshot was sent and acknowledged.
    pub synced: bool,
}

pub(super) enum Update {
    Add { pod: Pod, answer: oneshot::Sender<Result<(), String>> },
    Del { uid: PodId, answer: oneshot::Sender<Result<(), String>> },
}

struct Connection {
    peer: Peer,
    queue: mpsc::Sender<Update>,
    synced: bool,
    /// The proxy's last answer for each pod, and the namespace it was about.
    answers: HashMap<PodId, (Arc<OwnedFd>, Result<(), String>)>,
}

#[derive(Default)]
struct Inner {
    pods: BTreeMap<PodId, Pod>,
    connections: BTreeMap<ConnectionId, Connection>,
}

/// The pods and the connections; clones share them.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
    changes: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { inner: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Registry {
    /// Registers a pod whose namespace is not known yet: a snapshot sends `Keep` for it. Leaves a known namespace alone.
    pub fn keep(&self, uid: &PodId, info: WorkloadInfo) {
        self.inner.lock().pods.entry(uid.clone()).or_insert_with(|| Pod { uid: uid.clone(), info, netns: None });
    }

    /// Registers a pod with its namespace, so that the next snapshot has it, without telling the proxies that are connected.
    pub fn register(&self, pod: Pod) {
        self.inner.lock().pods.insert(pod.uid.clone(), pod);
    }

    /// Registers the pod and has the newest connection open its listeners. Succeeds with the proxy's acknowledgement only.
    ///
    /// The pod stays registered after a failure. Cancel-safe as far as the registry goes; the request itself may already be on its way.
    pub async fn add(&self, pod: Pod) -> Result<ConnectionId, AddError> {
        if pod.netns.is_none() {
            return Err(AddError::NoNetns);
        }
        // Before a connection is chosen: if it ends meanwhile, the next one has the pod in its snapshot.
        self.register(pod.clone());
        let (connection, queue) = {
            let inner = self.inner.lock();
            // During a hand-over two proxies are connected. New pods go to the successor; the old one only drains.
            let newest = inner.connections.last_key_value().ok_or(AddError::NoConnection)?;
            (*newest.0, newest.1.queue.clone())
        };
        let (answer, answered) = oneshot::channel();
        match timeout(DEADLINE, queue.send(Update::Add { pod, answer })).await {
            Err(_) => return Err(AddError::Busy),
            Ok(Err(_)) => return Err(AddError::Lost),
            Ok(Ok(())) => {}
        }
        // Bounded: the connection's own deadlines end it, and with it the sender.
        match answered.await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(reason)) => Err(AddError::Refused { reason }),
            Err(_) => Err(AddError::Lost),
        }
    }

    /// Takes the pod out and has every connection drop it. Returns how many acknowledged: all that there are.
    pub async fn del(&self, uid: &PodId) -> Result<usize, DelError> {
        // Out of the registry under the same lock, so that a proxy that connects now does not get it in its snapshot.
        let queues: Vec<_> = {
            let mut inner = self.inner.lock();
            inner.pods.remove(uid);
            inner.connections.values().map(|connection| connection.queue.clone()).collect()
        };
        let mut result = Ok(());
        let mut answers = Vec::new();
        for queue in queues {
            let (answer, answered) = oneshot::channel();
            match timeout(DEADLINE, queue.send(Update::Del { uid: uid.clone(), answer })).await {
                Err(_) => result = Err(DelError::Busy),
                Ok(Err(_)) => result = Err(DelError::Lost),
                Ok(Ok(())) => answers.push(answered),
            }
        }
        // All are asked before the first answer is waited for: a slow proxy does not delay the others.
        let mut acknowledged = 0;
        for answered in answers {
            match answered.await {
                Ok(Ok(())) => acknowledged += 1,
                Ok(Err(reason)) => result = Err(DelError::Refused { reason }),
                Err(_) => result = Err(DelError::Lost),
            }
        }
        result.map(|()| acknowledged)
    }

    /// Returns the newest connection if it serves the pod in the namespace it is registered with.
    ///
    /// `Err` says why not: the proxy's words, or that it was not asked yet.
    pub fn acknowledged(&self, uid: &PodId) -> Result<ConnectionId, String> {
        let inner = self.inner.lock();
        let (id, newest) = inner.connections.last_key_value().ok_or("no ztunnel connection")?;
        let pod = inner.pods.get(uid).ok_or("not registered")?;
        match newest.answers.get(uid) {
            // By identity of the descriptor: a pod whose sandbox was made anew has another one under the same uid.
            Some((netns, answer)) if pod.netns.as_ref().is_some_and(|registered| Arc::ptr_eq(registered, netns)) => {
                answer.clone().map(|()| *id)
            }
            Some(_) => Err("the proxy serves an earlier namespace of the pod".to_owned()),
            None => Err("not acknowledged yet".to_owned()),
        }
    }

    /// Live connections, oldest first; new pods go to the last.
    pub fn connections(&self) -> Vec<ConnectionStatus> {
        self.inner
            .lock()
            .connections
            .values()
            .map(|connection| ConnectionStatus { peer: connection.peer, synced: connection.synced })
            .collect()
    }

    /// Ticks when a connection begins, has its snapshot, or ends.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Every registered pod, also those whose namespace is not known.
    pub fn pods(&self) -> Vec<PodId> {
        self.inner.lock().pods.keys().cloned().collect()
    }

    fn changed(&self) {
        // The number means nothing: readers only see that it is another one.
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn connected(&self, peer: Peer, queue: mpsc::Sender<Update>) -> Registration {
        let connection = Connection { peer, queue, synced: false, answers: HashMap::new() };
        self.inner.lock().connections.insert(peer.connection, connection);
        self.changed();
        Registration { registry: self.clone(), connection: peer.connection }
    }

    pub(super) fn snapshot(&self) -> Vec<Pod> {
        self.inner.lock().pods.values().cloned().collect()
    }

    pub(super) fn synced(&self, connection: ConnectionId) {
        if let Some(connection) = self.inner.lock().connections.get_mut(&connection) {
            // A task that wakes reads the registry, so the lock is released before the tick.
            connection.synced = true;
        }
        self.changed();
    }

    pub(super) fn answered(&self, connection: ConnectionId, pod: &Pod, answer: Result<(), String>) {
        if let (Some(connection), Some(netns)) = (self.inner.lock().connections.get_mut(&connection), &pod.netns) {
            // The clone keeps the namespace's descriptor open, so that its number cannot be used again meanwhile.
            connection.answers.insert(pod.uid.clone(), (netns.clone(), answer));
        }
    }

    pub(super) fn forgotten(&self, connection: ConnectionId, uid: &PodId) {
        if let Some(connection) = self.inner.lock().connections.get_mut(&connection) {
            // Also after a refusal: the pod is no longer registered, and its old answer must not count when it comes
            // back.
            connection.answers.remove(uid);
        }
    }
}

/// Takes the connection out of the registry when its task ends, however it ends.
pub(super) struct Registration {
    registry: Registry,
    connection: ConnectionId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.inner.lock().connections.remove(&self.connection);
        self.registry.changed();
    }
}
