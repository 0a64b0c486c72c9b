//! Enrolment of one pod: the steps, their order, and what counts as proof.
//! How a step is done on a real node is in `node`; which pods are wanted is in `controller`.

mod actor;
mod announcement;
mod entering;
mod goal;
mod leaving;
mod proof;
mod repairing;
#[cfg(test)]
pub(crate) mod tests;

pub use actor::Actor;
pub use announcement::Announcement;
pub use goal::{Goal, Timing, Wanted};
pub use leaving::unenrol_now;
pub use proof::{Fact, Proof, Reading, Side, Verdict};

use std::fmt;
use std::sync::Arc;

use contract::admin::agent::Check;
use contract::labels::{REDIRECTION_ANNOTATION, REDIRECTION_ENABLED, REDIRECTION_PENDING};
use kube_types::core::Pod;
use tokio::time::Instant;

use crate::pod::{LocalPod, PodNetns};

/// Selection of the new connections of a pod that go to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// As the kernel has it; none for a pod it does not know.
    Unchanged,
    /// All, in both directions.
    On,
    /// None; connections that were captured before continue.
    Off,
}

/// Values of a pod's annotation `ambient.istio.io/redirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redirection {
    /// The kernel steers the pod's traffic, and the proxy does not serve the pod yet. Peers take it for one outside the mesh.
    Pending,
    /// Everything was read back; peers speak HBONE to it.
    Enabled,
}

impl Redirection {
    /// The annotation's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => REDIRECTION_PENDING,
            Self::Enabled => REDIRECTION_ENABLED,
        }
    }

    /// Reads a pod's annotation.
    pub fn of(pod: &Pod) -> Option<Self> {
        let value = pod.metadata.annotations.get(REDIRECTION_ANNOTATION)?;
        [Self::Pending, Self::Enabled].into_iter().find(|redirection| redirection.as_str() == value)
    }
}

/// One step, for logs, metrics and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Locate,
    Tag,
    Entry,
    Rules,
    Link,
    Announce,
    CatchUp,
    ReadBack,
    Watch,
    Mend,
    Annotate,
    Drain,
    Dismiss,
    Unlink,
    RemoveRules,
    RemoveEntry,
}

impl Step {
    /// Stable: metric label and log key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Locate => "locate",
            Self::Tag => "tag",
            Self::Entry => "entry",
            Self::Rules => "rules",
            Self::Link => "link",
            Self::Announce => "announce",
            Self::CatchUp => "catch_up",
            Self::ReadBack => "read_back",
            Self::Watch => "watch",
            Self::Mend => "mend",
            Self::Annotate => "annotate",
            Self::Drain => "drain",
            Self::Dismiss => "dismiss",
            Self::Unlink => "unlink",
            Self::RemoveRules => "remove_rules",
            Self::RemoveEntry => "remove_entry",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that did not succeed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The step was refused, by the kernel, the proxy or the API.
    #[error("{step}: {source}")]
    Failed { step: Step, source: Box<dyn std::error::Error + Send + Sync> },
    /// Every step succeeded, and what was read back is something else.
    #[error("read_back: {}", proof::failing(.checks))]
    Unproved { checks: Vec<Check> },
    /// Removal succeeded, and something is still there.
    #[error("remove: still there: {}", .left.join(", "))]
    Leftovers { left: Vec<String> },
}

impl StepError {
    /// The error of `step`; for `map_err`.
    pub fn at<E: Into<Box<dyn std::error::Error + Send + Sync>>>(step: Step) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { step, source: source.into() }
    }

    /// Stable: metric label and log key.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Failed { step, .. } => step.name(),
            Self::Unproved { .. } => "unproved",
            Self::Leftovers { .. } => "leftovers",
        }
    }
}

/// Changes to the routing of a namespace. They may get lost: the regular proof does not depend on them.
pub trait Watch: Send {
    /// Waits until something has changed since the last call. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// The steps as the node can do them, each idempotent. Faked in tests of their order.
pub trait Node: Send + Sync + 'static {
    /// Tells of changes to the routing of one namespace.
    type Watch: Watch;

    /// Begins to watch the namespace's routing rules, routes, addresses and interfaces.
    fn watch(&self, pod_netns: &Arc<PodNetns>) -> Result<Self::Watch, StepError>;
    /// Repairs rules, routes and their order, when a lookup shows that they have no effect any more; returns what was
    /// repaired, in words.
    fn mend(
        &self,
        pod: &LocalPod,
        pod_netns: &Arc<PodNetns>,
    ) -> impl Future<Output = Result<Vec<String>, StepError>> + Send;
    /// Finds the pod's network namespace.
    fn locate(&self, pod: &LocalPod) -> impl Future<Output = Result<Arc<PodNetns>, StepError>> + Send;
    /// Tags the cgroup of every connected proxy, so that the kernel knows its sockets.
    fn tag(&self) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Enters the pod in the kernel's map.
    fn put_entry(
        &self,
        pod: &LocalPod,
        pod_netns: &Arc<PodNetns>,
        capture: Capture,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Rules, routes and settings of the namespace.
    fn put_rules(
        &self,
        pod: &LocalPod,
        pod_netns: &Arc<PodNetns>,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// The program of the namespace.
    fn attach(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Asks the newest proxy to serve the pod, and waits for its acknowledgement.
    fn announce(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>)
    -> impl Future<Output = Result<(), StepError>> + Send;
    /// Enters the listeners that the newest proxy opened before the kernel programs knew the pod.
    fn catch_up(&self) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Reads everything back. Never fails: what cannot be read is said of that fact. What all pods share may have been read
    /// at `since`.
    fn proof(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>, since: Instant) -> impl Future<Output = Proof> + Send;
    /// Lists programs and filters in the namespace that may take connections away from the proxy. They are reported, and no facts.
    fn hazards(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<Vec<String>, StepError>> + Send;
    /// Tells the cluster how far the pod is; `None` takes back what was told.
    fn annotate(
        &self,
        pod: &LocalPod,
        redirection: Option<Redirection>,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Takes back whatever was told of a pod that no longer exists.
    fn forget_annotation(&self, pod: &LocalPod) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Live sockets of connections that go through the proxy.
    fn proxied(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<usize, StepError>> + Send;
    /// Asks every connected proxy to drop the pod, and waits for their acknowledgements. Returns the number of them, 0 while
    /// none is connected.
    fn dismiss(&self, pod: &LocalPod) -> impl Future<Output = Result<usize, StepError>> + Send;
    /// Undoes [`Node::attach`].
    fn detach(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Undoes [`Node::put_rules`].
    fn remove_rules(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Undoes [`Node::put_entry`].
    fn remove_entry(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Lists everything that the kernel still has of the pod.
    fn leftovers(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<Vec<String>, StepError>> + Send;
    /// Returns whether the kernel knows the pod. Asked of pods that are not to be enrolled.
    fn has_entry(&self, pod_netns: &Arc<PodNetns>) -> impl Future<Output = Result<bool, StepError>> + Send;
}
