//! The wait until the programs run everywhere.

use std::time::Duration;

use contract::manifests::{AGENT, CONTROL, SYSTEM_NAMESPACE, ZTUNNEL};
use kube_cluster::{Collection, Location, Objects, RequestError};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{InstallError, Progress};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until the newest version of each program is ready wherever it has to run.
pub(crate) async fn wait(api: &Objects, limit: Duration, progress: &mut dyn Progress) -> Result<(), InstallError> {
    let deadline = Instant::now() + limit;
    let mut told = String::new();
    loop {
        let mut missing = Vec::new();
        for (plural, name) in [("deployments", CONTROL), ("daemonsets", AGENT), ("daemonsets", ZTUNNEL)] {
            let at = Collection::namespaced("apps/v1", plural, SYSTEM_NAMESPACE).named(name);
            missing.extend(unfinished(api, &at).await?);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let text = missing.join("; ");
        if Instant::now() >= deadline {
            return Err(InstallError::Late { limit, missing: text });
        }
        if text != told {
            progress.tell(&format!("waiting: {text}"));
            told = text;
        }
        sleep(LOOK).await;
    }
}

/// Text about what a Deployment or DaemonSet lacks; `None` when it runs as it should.
async fn unfinished(api: &Objects, at: &Location) -> Result<Option<String>, RequestError> {
    let Some(object) = api.get(at).await? else { return Ok(Some(format!("{} does not exist", at.name))) };
    let Some(counts) = Counts::of(&object).unfinished() else { return Ok(None) };
    let selector = format!("app={}", at.name);
    let pods = api.list(&Collection::namespaced("v1", "pods", SYSTEM_NAMESPACE), None, Some(&selector)).await?;
    let mut reasons: Vec<_> = pods.iter().filter_map(reason).collect();
    reasons.sort();
    reasons.dedup();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    Ok(Some(format!("{} {counts}{reasons}", at.name)))
}

/// Pods of a Deployment or DaemonSet, as its controller counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// The controller has seen the newest version.
    is_observed: bool,
    wanted: u64,
    updated: u64,
    available: u64,
}

impl Counts {
    fn of(object: &Value) -> Self {
        let (status, metadata) = (&object["status"], &object["metadata"]);
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let is_observed = number(&status["observedGeneration"]) >= number(&metadata["generation"]);
        if object["kind"] == "DaemonSet" {
            let (wanted, updated) = (&status["desiredNumberScheduled"], &status["updatedNumberScheduled"]);
            let available = number(&status["numberAvailable"]);
            return Self { is_observed, wanted: number(wanted), updated: number(updated), available };
        }
        let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
        let (updated, available) = (number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
        Self { is_observed, wanted, updated, available }
    }

    fn unfinished(self) -> Option<String> {
        let Self { is_observed, wanted, updated, available } = self;
        let ready = updated.min(available);
        (!is_observed || ready < wanted).then(|| format!("{ready} of {wanted} ready"))
    }
}

/// Reason that a pod is not ready, if it says one.
fn reason(pod: &Value) -> Option<String> {
    let node = pod["spec"]["nodeName"].as_str();
    let status = &pod["status"];
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
    let containers = lists.into_iter().flatten().flatten();
    let waiting = containers.filter_map(|container| container["state"]["waiting"]["reason"].as_str()).next();
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let unscheduled = conditions
        .filter(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")
        .find_map(|condition| condition["message"].as_str());
    let reason = waiting.or(unscheduled)?;
    Some(node.map_or_else(|| reason.to_owned(), |node| format!("{node}: {reason}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_daemonset_is_finished_when_its_newest_version_is_available_on_every_node() {
        let set = |observed: u64, updated: u64, available: u64| {
            let status = json!({
                "observedGeneration": observed, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated,
                "numberAvailable": available,
            });
            let set = json!({"kind": "DaemonSet", "metadata": {"generation": 3}, "status": status});
            Counts::of(&set).unfinished()
        };

        assert_eq!(set(3, 2, 2), None);
        assert_eq!(set(2, 2, 2).as_deref(), Some("2 of 2 ready"), "of an older version");
        assert_eq!(set(3, 1, 2).as_deref(), Some("1 of 2 ready"));
        assert_eq!(set(3, 2, 0).as_deref(), Some("0 of 2 ready"));
    }

    #[test]
    fn a_new_deployment_has_no_status_yet() {
        let new = json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 1}});

        assert_eq!(Counts::of(&new).unfinished().as_deref(), Some("0 of 1 ready"));
    }

    #[test]
    fn a_pod_says_what_it_waits_for_and_where() {
        let pulling = json!({
            "spec": {"nodeName": "n1"},
            "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
        });
        let unscheduled = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"},
        ]}});

        assert_eq!(reason(&pulling).as_deref(), Some("n1: ErrImagePull"));
        assert_eq!(reason(&unscheduled).as_deref(), Some("0/2 nodes are available"));
        assert_eq!(reason(&json!({})), None);
    }
}
