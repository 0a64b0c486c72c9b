//! The name of the workload that a pod belongs to, guessed from its controller as Istio does.

use contract::labels::WORKLOAD_NAME_LABEL;
use kube_types::core::Pod;

const POD_TEMPLATE_HASH: &str = "pod-template-hash";
const ROLLOUT_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
const DEPLOYMENT_CONFIG: &str = "deploymentconfig";

/// Name of the Deployment, StatefulSet, ... of a pod; its own name when there is none. A controller
/// only counts for a pod with a generated name.
pub(crate) fn workload_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let label = |name: &str| meta.labels.get(name).filter(|value| !value.is_empty());
    if let Some(name) = label(WORKLOAD_NAME_LABEL) {
        return name.clone();
    }
    // A pod that was made by hand may name any owner; only generated names follow the owner's.
    let generated = meta.generate_name.as_ref().is_some_and(|name| !name.is_empty());
    let Some(owner) = meta.controller().filter(|_| generated) else {
        return meta.name.clone();
    };
    match owner.kind.as_str() {
        "ReplicaSet" => [ROLLOUT_TEMPLATE_HASH, POD_TEMPLATE_HASH]
            .into_iter()
            .filter_map(label)
            // By the hash that the pod carries, and not by the last hyphen: names of Deployments have hyphens too.
            .find_map(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
            .unwrap_or(&owner.name)
            .to_owned(),
        "ReplicationController" => label(DEPLOYMENT_CONFIG).unwrap_or(&owner.name).clone(),
        "Job" => without_schedule(&owner.name).to_owned(),
        _ => owner.name.clone(),
    }
}

/// Jobs of a CronJob end in the minute they were due: 8 to 10 digits.
fn without_schedule(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((cron, minute))
            if !cron.is_empty()
                && (8..=10).contains(&minute.len())
                && minute.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            cron
        }
        Some(_) | None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_minute_is_cut_from_the_name_of_a_job() {
        assert_eq!(without_schedule("tick-27896001"), "tick");
        assert_eq!(without_schedule("tick-1234567"), "tick-1234567");
        assert_eq!(without_schedule("tick-a7896001"), "tick-a7896001");
        assert_eq!(without_schedule("once"), "once");
    }
}
