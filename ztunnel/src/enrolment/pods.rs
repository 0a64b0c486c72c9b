//! Pods that run and that wait, and the effect of an agent's commands on them.
//! It speaks no protocol; see `session`.

use crate::inpod::{
    ListenError, ListenerKind, Listening, Pod, PodInfo, PodListeners, PodStatus, SocketOptions, Sockets, Status,
};
use crate::workers::PodWorkers;
use runtime::sys::Netns;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Reason for which a pod does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("the listener cannot be watched: {0}")]
    Worker(#[from] std::io::Error),
}

impl StartError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Listen(e) => e.code(),
            Self::Worker(_) => "worker",
        }
    }
}

/// Number of starts of pods that failed.
const START_FAILURES: &str = "strake_pod_start_failures_total";

struct Waiting {
    info: PodInfo,
    netns: Arc<Netns>,
    /// Code of the error for which it does not run.
    code: &'static str,
}

/// The pods, and the one place that changes them.
pub struct Pods {
    workers: Arc<PodWorkers>,
    home: Arc<Netns>,
    options: Arc<SocketOptions>,
    running: HashMap<String, Arc<Pod>>,
    pending: HashMap<String, Waiting>,
    /// Uids that the agent has named on this connection.
    named: HashSet<String>,
    snapshot: bool,
    /// Pods started and stopped since the process began.
    started: u64,
    stopped: u64,
    status: watch::Sender<Status>,
}

impl Pods {
    /// No pods. `home` is the namespace of the process.
    pub fn new(
        workers: Arc<PodWorkers>,
        home: Arc<Netns>,
        options: Arc<SocketOptions>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            workers,
            home,
            options,
            running: HashMap::new(),
            pending: HashMap::new(),
            named: HashSet::new(),
            snapshot: false,
            started: 0,
            stopped: 0,
            status,
        }
    }

    /// Starts a pod, or keeps it when it runs in this namespace already. The error is what the agent hears;
    /// the pod is tried again with [`retry`](Self::retry).
    pub async fn add(&mut self, uid: String, info: PodInfo, netns: Netns) -> Result<(), StartError> {
        self.named.insert(uid.clone());
        let result = self.start(&uid, info, Arc::new(netns)).await;
        self.publish();
        result
    }

    async fn start(&mut self, uid: &str, info: PodInfo, netns: Arc<Netns>) -> Result<(), StartError> {
        if let Some(pod) = self.running.get(uid) {
            // The agent names pods again after it was restarted: what runs is left alone.
            if pod.netns == Some(netns.id()) {
                self.pending.remove(uid);
                return Ok(());
            }
            tracing::info!(uid, "the pod's network namespace has changed");
            self.stop(uid).await;
        }
        let sockets = Sockets::in_netns(netns.clone(), self.home.clone(), self.options.clone());
        let pod = Arc::new(Pod::new(uid, info.clone(), sockets, Some(netns.id())));
        // All listeners or none: half a pod would let traffic past a policy.
        if let Err(e) = launch(&self.workers, &pod, &ListenerKind::ALL).await {
            let (name, namespace, code) = (&info.name, &info.namespace, e.code());
            metrics::counter!(START_FAILURES, "code" => code).increment(1);
            // Once for each reason, then quietly: it is tried again every few seconds.
            if self.pending.get(uid).is_none_or(|before| before.code != code) {
                tracing::warn!(uid, name, namespace, error = %e, code, "failed to start pod; trying again");
            }
            self.pending.insert(uid.to_owned(), Waiting { info, netns, code });
            return Err(e);
        }
        tracing::info!(uid, name = pod.info.name, namespace = pod.info.namespace, "pod started");
        self.started += 1;
        self.pending.remove(uid);
        self.running.insert(uid.to_owned(), pod);
        Ok(())
    }

    async fn stop(&mut self, uid: &str) {
        if let Some(pod) = self.running.remove(uid) {
            self.workers.stop_pod(&pod).await;
            self.stopped += 1;
            tracing::info!(uid, "pod stopped");
        }
    }

    /// Notes that the pod exists, wherever its namespace is: it continues to run.
    pub fn keep(&mut self, uid: String) {
        self.named.insert(uid);
    }

    /// Stops a pod that is gone. Before the snapshot is complete, it is stopped with the others then.
    pub async fn del(&mut self, uid: &str) {
        self.named.remove(uid);
        self.pending.remove(uid);
        if self.snapshot {
            self.stop(uid).await;
        }
        self.publish();
    }

    /// Stops all pods that the agent has not named: its snapshot is complete.
    pub async fn snapshot_complete(&mut self) {
        let gone: Vec<_> = self.running.keys().filter(|uid| !self.named.contains(*uid)).cloned().collect();
        for uid in gone {
            self.stop(&uid).await;
        }
        // Ready although some pods may have failed: one bad pod must not take the node out of service.
        self.snapshot = true;
        self.publish();
    }

    /// Notes that the agent is gone: pods continue to run, none is tried again, and the next connection names all pods anew.
    pub fn disconnected(&mut self) {
        // Their namespaces are not held any longer than the agent that named them: it may have gone because the pods
        // have.
        self.pending.clear();
        self.named.clear();
        self.snapshot = false;
        self.publish();
    }

    /// Tries pods again that could not be started.
    pub async fn retry(&mut self) {
        let waiting: Vec<_> =
            self.pending.iter().map(|(uid, w)| (uid.clone(), w.info.clone(), w.netns.clone())).collect();
        for (uid, info, netns) in waiting {
            // It stays where it is when it fails again.
            let _ = self.start(&uid, info, netns).await;
        }
        self.publish();
    }

    /// Returns whether a pod waits for another attempt.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn publish(&self) {
        let up = self.running.values().map(|p| PodStatus {
            uid: p.uid.clone(),
            info: p.info.clone(),
            running: Some(p.clone()),
        });
        let waiting =
            self.pending.iter().map(|(uid, w)| PodStatus { uid: uid.clone(), info: w.info.clone(), running: None });
        self.status.send_replace(Status {
            ready: self.snapshot,
            pods: up.chain(waiting).collect(),
            started: self.started,
            stopped: self.stopped,
        });
    }
}

/// Listens for a pod on `kinds` of ports, and for its DNS questions, and gives the listeners to its worker.
pub async fn launch(workers: &PodWorkers, pod: &Arc<Pod>, kinds: &[ListenerKind]) -> Result<(), StartError> {
    let listen = |kind: &ListenerKind| -> Result<(ListenerKind, Listening), ListenError> {
        Ok((*kind, pod.sockets.listen(kind.port(), kind.needs_keepalive())?))
    };
    let connections = kinds.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
    let dns = pod.sockets.options().dns.as_ref().map(|options| pod.sockets.listen_dns(options)).transpose()?;
    let listeners = PodListeners { connections, dns: dns.unwrap_or_default() };
    if let Err(e) = workers.start_pod(pod.clone(), listeners).await {
        // Some listeners may have been registered already.
        workers.stop_pod(pod).await;
        return Err(e.into());
    }
    Ok(())
}
