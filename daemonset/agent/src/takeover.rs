//! What a starting agent does before the first goal: finds where its predecessor enrolled pods, so that the
//! first snapshot has them all, and sweeps what belongs to nobody any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zds::PodId;
use zds::server::Pod;

use crate::enrol::{Node, Place, PodSpec, Redirection, StepError, Wanted};
use crate::node::{LiveNode, described};

/// Registers every pod that is enrolled, and has the next proxy keep those whose namespace is not found.
///
/// A proxy drains every pod that its snapshot does not name.
pub async fn take_over(
    node: &LiveNode,
    pods: Vec<(PodSpec, Wanted, Option<Redirection>)>,
) -> HashMap<PodId, Arc<Place>> {
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
            Err(error) if told.is_some() => {
                lost += 1;
                tracing::warn!(pod = %pod.key.path(), code = error.code(), %error, "an enrolled pod is not found");
                node.registry.keep(&pod.uid, pod.info);
            }
            // Starting, or not a pod with a namespace.
            Err(_) => {}
        }
    }
    tracing::info!(pods = footprints.len(), lost, "taken over from an earlier agent");
    // While a pod is lost, its entry cannot be told from one that belongs to nobody: pods are not opened by mistake.
    if lost == 0 {
        sweep(node, &footprints).await;
    }
    footprints
}

/// Puts this agent's program in the place of its predecessor's, in one step: no connection meets neither.
async fn renew(node: &LiveNode, pod: &PodSpec, place: &Arc<Place>) {
    if let Err(error) = node.attach(place).await {
        tracing::warn!(pod = %pod.key.path(), code = error.code(), %error, "an enrolled pod keeps an earlier agent's program");
    }
}

/// The pod's namespace, if the kernel knows it.
async fn entered(node: &LiveNode, pod: &PodSpec) -> Result<Option<Arc<Place>>, StepError> {
    let place = node.locate(pod).await?;
    Ok(node.has_entry(&place).await?.then_some(place))
}

async fn sweep(node: &LiveNode, footprints: &HashMap<PodId, Arc<Place>>) {
    let known: BTreeSet<u64> = footprints.values().map(|place| place.cookie).collect();
    let (steering, previous) = (node.steering.clone(), node.previous.clone());
    let swept = tokio::task::spawn_blocking(move || {
        if let Err(error) = previous.sweep(&known) {
            tracing::warn!(%error, "cannot sweep settings of pods that have gone");
        }
        steering.sweep(&known)
    });
    match swept.await {
        Ok(Ok(swept)) => tracing::info!(pods = swept.pods.len(), cgroups = swept.cgroups, "swept what nobody uses"),
        Ok(Err(error)) => tracing::warn!("cannot sweep: {}", described(&error)),
        Err(error) => tracing::warn!(%error, "cannot sweep"),
    }
}
