//! What a starting agent does before the first goal: finds where its predecessor enrolled pods, so that the
//! first snapshot has them all, and sweeps what belongs to nobody any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zds::PodId;
use zds::server::Pod;

use crate::enrol::{Node, Place, PodSpec, Redirection, StepError, Wanted};
use crate::finder::{FindError, Found};
use crate::node::{LiveNode, described};
use crate::rules::{self, Routing};

/// What a starting agent has found of its predecessor.
pub struct TakenOver {
    /// Where pods are enrolled, by uid.
    pub footprints: HashMap<PodId, Arc<Place>>,
    /// What belongs to nobody was removed. It is not while a pod cannot be found: its entry could not be told from others.
    pub swept: bool,
}

/// Registers every pod that is enrolled, and has the next proxy keep those whose namespace is not found.
///
/// A proxy drains every pod that its snapshot does not name.
pub async fn take_over(node: &LiveNode, pods: Vec<(PodSpec, Wanted, Option<Redirection>)>) -> TakenOver {
    let mut footprints = HashMap::new();
    let mut lost = 0;
    for (pod, wanted, told) in pods {
        if matches!(wanted, Wanted::Finished { .. } | Wanted::Gone) {
            continue;
        }
        match entered(node, &pod).await {
            Ok(Some(place)) => {
                renew(node, &pod, &place).await;
                node.registry.register(Pod {
                    uid: pod.uid.clone(),
                    info: pod.info.clone(),
                    netns: Some(place.descriptor.clone()),
                });
                footprints.insert(pod.uid, place);
            }
            Ok(None) if told.is_some() => node.registry.keep(&pod.uid, pod.info),
            Ok(None) => {}
            Err(error) => {
                // Of a pod that was not announced, only what says that it is not running is an answer.
                let answered = told.is_none() && error.is_absent();
                lost += usize::from(!answered);
                if told.is_some() {
                    tracing::warn!(pod = %pod.key.path(), %error, "an enrolled pod is not found; it stays announced");
                    node.registry.keep(&pod.uid, pod.info);
                }
            }
        }
    }
    tracing::info!(pods = footprints.len(), lost, "taken over from an earlier agent");
    if lost == 0 {
        sweep(node, footprints.values().map(|place| place.cookie).collect()).await;
    }
    TakenOver { footprints, swept: lost == 0 }
}

/// Sweeps what a predecessor left behind, once every pod is found that was lost at the start. Returns whether it was done.
pub async fn sweep_when_found(
    node: &LiveNode,
    pods: impl Iterator<Item = (PodSpec, Wanted, Option<Redirection>)>,
) -> bool {
    let mut known = BTreeSet::new();
    for (pod, wanted, told) in pods {
        if matches!(wanted, Wanted::Finished { .. } | Wanted::Gone) {
            continue;
        }
        match entered(node, &pod).await {
            Ok(place) => known.extend(place.map(|place| place.cookie)),
            Err(error) if told.is_none() && error.is_absent() => {}
            Err(_) => return false,
        }
    }
    sweep(node, known).await;
    true
}

/// Why it is not known whether a pod is entered.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("cannot keep the network namespace open: {0}")]
    Place(#[from] std::io::Error),
}

impl Lost {
    /// The pod has no namespace of its own at this moment, for certain.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Find(FindError::NoAddress | FindError::NoProcess | FindError::NoNamespace))
    }
}

/// Puts this agent's program in the place of its predecessor's, in one step: no connection meets neither.
async fn renew(node: &LiveNode, pod: &PodSpec, place: &Arc<Place>) {
    if let Err(error) = node.attach(place).await {
        tracing::warn!(pod = %pod.key.path(), code = error.code(), %error, "an enrolled pod keeps an earlier agent's program");
    }
}

/// The pod's namespace, if the kernel knows it.
async fn entered(node: &LiveNode, pod: &PodSpec) -> Result<Option<Arc<Place>>, Lost> {
    let Found { netns, interface, .. } = node.finder.find(&pod.cgroup_uid, &pod.ips).await?;
    let place = Arc::new(Place::new(netns, interface)?);
    remove_legacy(pod, &place).await;
    Ok(node.has_entry(&place).await?.then_some(place))
}

/// Removes rules and routes of an agent whose programs this one cannot have taken over, so that nothing depends on them.
async fn remove_legacy(pod: &PodSpec, place: &Place) {
    let routing = Routing { addresses: pod.ips.clone(), interface: place.interface };
    match rules::remove_legacy(&place.netns, &routing).await {
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
        if let Err(error) = previous.sweep(&known) {
            tracing::warn!(%error, "cannot sweep settings of pods that have gone");
        }
        steering.sweep(&known)
    });
    match swept.await {
        Ok(Ok(swept)) => tracing::info!(pods = swept.pods.len(), cgroups = swept.cgroups, "removed stale entries"),
        Ok(Err(error)) => tracing::warn!("failed to remove stale entries: {}", described(&error)),
        Err(error) => tracing::warn!(%error, "failed to remove stale entries"),
    }
}
