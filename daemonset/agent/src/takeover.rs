//! The work of a starting agent before the first goal: finds where its predecessor enrolled pods, so that the
//! first snapshot has them all, and sweeps state that belongs to nobody any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zds::PodId;
use zds::server::Pod;

use crate::described::described;
use crate::enrol::{Goal, Node, StepError, Wanted};
use crate::finder::{FindError, Found};
use crate::node::LiveNode;
use crate::pod::{LocalPod, PodNetns};
use crate::rules::{self, Routing};

/// State that a starting agent has found of its predecessor.
pub struct TakenOver {
    /// Network namespaces of enrolled pods, by uid.
    pub steered: HashMap<PodId, Arc<PodNetns>>,
    /// State that belongs to no pod was removed. It is not while a pod cannot be found: its entry could not be told from others.
    pub swept: bool,
}

/// Registers every pod that is enrolled, and has the next proxy keep those whose namespace is not found.
///
/// A proxy drains every pod that its snapshot does not name.
pub async fn take_over(node: &LiveNode, goals: Vec<Goal>) -> TakenOver {
    let mut steered = HashMap::new();
    let mut lost = 0;
    for Goal { pod, wanted, annotated } in goals {
        match wanted {
            // `goals` has no such pod: it is a state of tasks.
            Wanted::Gone => continue,
            Wanted::Finished { .. } => {
                // Not registered: its task removes it once a proxy has confirmed that it does not serve it any more.
                match entered(node, &pod).await {
                    Ok(found) => steered.extend(found.map(|pod_netns| (pod.uid, pod_netns))),
                    Err(_) => lost += 1,
                }
                continue;
            }
            Wanted::In | Wanted::Out { .. } => {}
        }
        match entered(node, &pod).await {
            Ok(Some(pod_netns)) => {
                // Before the pod is registered, so that the proxy finds the programs of this agent.
                renew(node, &pod, &pod_netns).await;
                node.registry.register(Pod {
                    uid: pod.uid.clone(),
                    info: pod.info.clone(),
                    netns: Some(pod_netns.descriptor.clone()),
                });
                steered.insert(pod.uid, pod_netns);
            }
            // Annotated as enrolled, and without an entry in the kernel: the proxy keeps what it has until the task
            // knows more.
            Ok(None) if annotated.is_some() => node.registry.keep(&pod.uid, pod.info),
            Ok(None) => {}
            Err(error) => {
                // Of a pod that was not announced, only what says that it is not running is an answer.
                let answered = annotated.is_none() && error.is_absent();
                lost += usize::from(!answered);
                if annotated.is_some() {
                    tracing::warn!(pod = %pod.key.path(), %error, "failed to find an enrolled pod; discovery still advertises HBONE, and the pod is searched again");
                    node.registry.keep(&pod.uid, pod.info);
                }
            }
        }
    }
    tracing::info!(pods = steered.len(), lost, "took over the pods of an earlier agent");
    // An entry that belongs to nobody can be told from that of a lost pod only when no pod is lost.
    if lost == 0 {
        // All of these have an owner; every other entry has none.
        sweep(node, steered.values().map(|pod_netns| pod_netns.cookie).collect()).await;
    }
    TakenOver { steered, swept: lost == 0 }
}

/// Sweeps state that a predecessor left behind, once every pod is found that was lost at the start, and a proxy has confirmed
/// that it does not serve those that have finished. Returns whether it was done.
pub async fn sweep_when_found(node: &LiveNode, goals: impl Iterator<Item = Goal>) -> bool {
    let mut known = BTreeSet::new();
    for Goal { pod, wanted, annotated } in goals {
        if wanted == Wanted::Gone {
            continue;
        }
        let has_finished = matches!(wanted, Wanted::Finished { .. });
        match entered(node, &pod).await {
            Ok(pod_netns) => known.extend(pod_netns.map(|pod_netns| pod_netns.cookie)),
            // Its entry is one of those that belong to nobody, and connections may run through a proxy until that says otherwise.
            Err(_) if has_finished => {
                if !matches!(node.dismiss(&pod).await, Ok(1..)) {
                    return false;
                }
            }
            Err(error) if annotated.is_none() && error.is_absent() => {}
            Err(_) => return false,
        }
    }
    sweep(node, known).await;
    true
}

/// Reason why it is not known whether a pod is entered.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("cannot keep the network namespace open: {0}")]
    PodNetns(#[from] std::io::Error),
}

impl Lost {
    /// The pod has no namespace of its own at this moment, for certain.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Find(FindError::NoAddress | FindError::NoProcess | FindError::NoNamespace))
    }
}

/// Puts this agent's program in the place of its predecessor's, in one step: no connection meets neither.
async fn renew(node: &LiveNode, pod: &LocalPod, pod_netns: &Arc<PodNetns>) {
    if let Err(error) = node.attach(pod_netns).await {
        tracing::warn!(pod = %pod.key.path(), code = error.code(), %error, "failed to replace the sk_lookup program of an enrolled pod; the earlier agent's stays attached until it is repaired");
    }
}

/// The pod's namespace, if the kernel knows it.
async fn entered(node: &LiveNode, pod: &LocalPod) -> Result<Option<Arc<PodNetns>>, Lost> {
    let Found { netns, interface, .. } = node.finder.find(&pod.cgroup_uid, &pod.ips).await?;
    let pod_netns = Arc::new(PodNetns::new(netns, interface)?);
    // Also for pods without an entry: an earlier version's entries were in maps that this one does not read.
    remove_legacy(pod, &pod_netns).await;
    Ok(node.has_entry(&pod_netns).await?.then_some(pod_netns))
}

/// Removes rules and routes of an agent whose programs this one cannot have taken over, so that nothing depends on them.
async fn remove_legacy(pod: &LocalPod, pod_netns: &PodNetns) {
    let routing = Routing { addresses: pod.ips.clone(), interface: pod_netns.interface };
    match rules::remove_legacy(&pod_netns.netns, &routing).await {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => {
            tracing::info!(pod = pod.key.path(), removed = removed.join(", "), "removed rules of an earlier version")
        }
        Err(error) => tracing::warn!(
            pod = pod.key.path(),
            error = described(&error),
            "failed to remove rules of an earlier version; the next agent tries again"
        ),
    }
}

async fn sweep(node: &LiveNode, known: BTreeSet<u64>) {
    let (steering, previous) = (node.steering.clone(), node.previous.clone());
    let swept = tokio::task::spawn_blocking(move || {
        // The kernel's entries are swept all the same: a kept setting has no effect.
        if let Err(error) = previous.sweep(&known) {
            tracing::warn!(%error, "failed to remove kept settings of deleted pods; the next agent tries again");
        }
        steering.sweep(&known)
    });
    match swept.await {
        Ok(Ok(swept)) => tracing::info!(pods = swept.pods.len(), cgroups = swept.cgroups, "removed stale entries"),
        Ok(Err(error)) => tracing::warn!("failed to remove stale entries: {}", described(&error)),
        Err(error) => tracing::warn!(%error, "failed to remove stale entries"),
    }
}
