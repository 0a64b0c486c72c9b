//! Answers a CNI plugin, before the first container of a pod starts: whether the pod is enrolled, in the namespace that the
//! plugin names. It enrols nothing itself: the controller gives the pod's task its goal, and the pod's report says how far it is.
//!
//! `POST /cmdadd` on [`contract::cni::SOCKET_NAME`]. Every answer but "enrolled" keeps the pod from starting; the plugin asks
//! again. DEL and CHECK are no requests: the agent learns from the cluster that a pod has gone.

mod sandbox;
mod server;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::admin::agent::PodState;
use contract::cni::{AddRequest, AddResponse, Outcome};
use kube_types::{Kind, ObjectRef};
use parking_lot::Mutex;
use runtime::sys::netns::NetnsId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use zds::PodId;

pub use sandbox::{Sandbox, SandboxError};
pub use server::serve;

use crate::report::Reports;

/// Longest time until a request is answered, less than [`contract::cni::PLUGIN_TIMEOUT`]: the plugin hears the reason.
const DEADLINE: Duration = Duration::from_millis(4500);

/// Requests that wait for the controller; further ones wait to be put there, until their deadline.
const QUEUE: usize = 64;

/// One question to the controller.
#[derive(Debug)]
pub struct EnrolRequest {
    pub key: ObjectRef,
    /// `None` from Istio's plugin.
    pub uid: Option<PodId>,
    pub sandbox: Arc<Sandbox>,
    pub answer: oneshot::Sender<Decision>,
}

/// Decision of the controller about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The cluster has not told of the pod, or of what decides about it. To be asked again after a change.
    NotYet { what: &'static str },
    /// It does not belong into the mesh.
    NotSelected { reason: String },
    /// Its task knows the sandbox and works on it.
    Wanted { uid: PodId },
}

/// The controller's end of the queue of requests.
#[derive(Debug)]
pub struct Requests {
    pub queue: mpsc::Receiver<EnrolRequest>,
    /// Ticks when what the controller knows has changed.
    pub changed: watch::Sender<u64>,
}

impl Requests {
    /// Wakes the requests that were answered with [`Decision::NotYet`].
    pub fn note_change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Answers requests. Clones share everything.
#[derive(Debug, Clone)]
pub struct RequestHandler {
    queue: mpsc::Sender<EnrolRequest>,
    changed: watch::Receiver<u64>,
    reports: Reports,
    /// The node's own network namespace, which is no pod's.
    host: NetnsId,
}

impl RequestHandler {
    pub fn new(reports: Reports, host: NetnsId) -> (Self, Requests) {
        let (queue, requests) = mpsc::channel(QUEUE);
        let (change, changed) = watch::channel(0);
        (Self { queue, changed, reports, host }, Requests { queue: requests, changed: change })
    }

    /// Answers one request, within [`DEADLINE`]. Cancel-safe: what the pod's task has been given stays.
    pub async fn add(&self, body: &[u8]) -> AddResponse {
        let request: AddRequest = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => return refused(Outcome::Invalid, format!("invalid request: {error}")),
        };
        let progress = Progress::default();
        match timeout(DEADLINE, self.enrol(&request, &progress)).await {
            Ok(Ok(())) => AddResponse { outcome: Outcome::Enrolled, reason: String::new() },
            Ok(Err(refusal)) => refusal,
            Err(_) => refused(Outcome::Failed, format!("not enrolled within {DEADLINE:?}: {}", progress.last())),
        }
    }

    async fn enrol(&self, request: &AddRequest, progress: &Progress) -> Result<(), AddResponse> {
        let invalid = |reason: String| refused(Outcome::Invalid, reason);
        let ips: Vec<IpAddr> = request.ips.iter().map(|one| one.address.ip).collect();
        let uid = match &request.pod_uid {
            Some(uid) => Some(PodId::new(uid).ok_or_else(|| invalid(format!("invalid PodUID {uid:?}")))?),
            None => None,
        };
        progress.note(format!("opening the network namespace {}", request.netns));
        let sandbox = Sandbox::open(&request.netns, ips, self.host).await;
        let sandbox = Arc::new(sandbox.map_err(|error| refused(Outcome::Failed, error.to_string()))?);
        let key = ObjectRef::new(Kind::Pod, request.pod_namespace.clone(), request.pod_name.clone());
        let uid = self.until_wanted(&key, uid, &sandbox, progress).await?;
        self.until_enrolled(&key, &uid, sandbox.cookie(), progress).await
    }

    /// Waits until the controller knows the pod and whether it is selected.
    async fn until_wanted(
        &self,
        key: &ObjectRef,
        uid: Option<PodId>,
        sandbox: &Arc<Sandbox>,
        progress: &Progress,
    ) -> Result<PodId, AddResponse> {
        let ending = || refused(Outcome::Failed, "the agent is ending".to_owned());
        let mut changed = self.changed.clone();
        progress.note("the agent is starting".to_owned());
        loop {
            // Marked before the question: a change that comes during it is not missed.
            changed.borrow_and_update();
            let (answer, answered) = oneshot::channel();
            let enrol_request = EnrolRequest { key: key.clone(), uid: uid.clone(), sandbox: sandbox.clone(), answer };
            // Waits while the queue is full, within the deadline of the request.
            self.queue.send(enrol_request).await.map_err(|_| ending())?;
            match answered.await.map_err(|_| ending())? {
                Decision::Wanted { uid } => return Ok(uid),
                Decision::NotSelected { reason } => return Err(refused(Outcome::NotSelected, reason)),
                Decision::NotYet { what } => progress.note(what.to_owned()),
            }
            changed.changed().await.map_err(|_| ending())?;
        }
    }

    /// Waits until the pod's report says that it is enrolled in this very namespace.
    async fn until_enrolled(
        &self,
        key: &ObjectRef,
        uid: &PodId,
        cookie: u64,
        progress: &Progress,
    ) -> Result<(), AddResponse> {
        let mut changes = self.reports.changes();
        loop {
            changes.borrow_and_update();
            let Some(report) = self.reports.find(&key.namespace, &key.name, uid.as_str()) else {
                return Err(refused(Outcome::Failed, "the pod is gone".to_owned()));
            };
            // By the cookie: a pod whose sandbox was made anew may still be enrolled in the old namespace.
            if report.state == PodState::Enrolled && report.cookie == Some(cookie) {
                return Ok(());
            }
            if !report.selected {
                return Err(refused(Outcome::NotSelected, report.reason));
            }
            progress.note(match report.state {
                PodState::Enrolled => "the pod is enrolled in another network namespace".to_owned(),
                state => format!("{}: {}", state.as_str(), report.reason),
            });
            // The sender lives as long as `self.reports`.
            let _ = changes.changed().await;
        }
    }
}

/// The step that a request waits for, for the reason of a timeout.
#[derive(Debug, Default)]
struct Progress(Mutex<String>);

impl Progress {
    fn note(&self, step: String) {
        *self.0.lock() = step;
    }

    fn last(&self) -> String {
        self.0.lock().clone()
    }
}

fn refused(outcome: Outcome, reason: String) -> AddResponse {
    AddResponse { outcome, reason }
}
