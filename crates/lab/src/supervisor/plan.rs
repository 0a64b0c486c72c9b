//! Which pods should run, from the objects and from what became of the pods of Jobs. Starting and stopping them is `reconcile`'s.

use std::collections::{BTreeMap, btree_map::Entry};

use kube_types::{ObjectRef, Resource};
use tokio::time::Instant;

use super::{PodKey, Supervisor};
use crate::{
    control::Phase,
    services,
    workloads::{self, Objects, Planned, jobs},
};

impl Supervisor {
    /// Services of the manifests with their addresses.
    pub(super) fn services(&mut self) -> Vec<kube_types::core::Service> {
        let mut found = Vec::new();
        for resource in self.objects.values() {
            if let Resource::Service(service) = resource {
                found.push(services::with_addresses(service, &mut self.service_hosts));
            }
        }
        found
    }

    /// Pods that ended for good, but not well. Those of a Job are the Job's business.
    pub(super) fn failed_pods(&self) -> Vec<String> {
        let failed =
            self.pods.iter().filter(|(_, running)| running.planned.job.is_none()).filter_map(|(key, running)| {
                let state = running.shared.get();
                let reason = state.failed_container().filter(|_| state.phase() == Phase::Failed)?;
                Some(format!("pod {}/{} failed: {reason}", key.0, key.1))
            });
        failed.collect()
    }

    /// Every pod that should run, by name.
    pub(super) fn plan(&mut self, problems: &mut Vec<String>) -> BTreeMap<PodKey, Planned> {
        let candidates: Vec<_> = self.nodes.iter().map(|node| node.candidate.clone()).collect();
        let objects: Objects = self
            .objects
            .iter()
            .filter(|(key, _)| !self.review.refused.contains(key))
            .map(|(key, resource)| (key.clone(), resource.clone()))
            .collect();
        self.job_plan = self.jobs.plan(&objects, &self.seen_of_jobs(), Instant::now());
        let system = self.mesh.iter().flat_map(|mesh| mesh.pods(&self.system_nodes()));
        let all: Vec<_> = system.chain(workloads::expand(&objects, &candidates, &self.job_plan.pods)).collect();
        let mut planned = BTreeMap::new();
        self.without_image = 0;
        for pod in all {
            if workloads::without_command(&pod.pod.spec).is_some() {
                self.without_image += 1;
                continue;
            }
            match planned.entry(pod.key()) {
                Entry::Vacant(entry) => drop(entry.insert(pod)),
                Entry::Occupied(entry) => {
                    let (namespace, name) = entry.key();
                    problems.push(format!("pod {namespace}/{name} is asked for twice: only one of them runs"));
                }
            }
        }
        planned
    }

    /// What became of the pods of each Job.
    fn seen_of_jobs(&self) -> BTreeMap<ObjectRef, Vec<jobs::Seen>> {
        let mut seen: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for running in self.pods.values().filter(|running| !running.is_stopping()) {
            let Some((job, number)) = &running.planned.job else { continue };
            let state = running.shared.get();
            let succeeded = match state.phase() {
                Phase::Succeeded => Some(true),
                Phase::Failed => Some(false),
                Phase::Pending | Phase::Running => None,
            };
            seen.entry(job.clone()).or_default().push(jobs::Seen {
                number: *number,
                fingerprint: running.planned.fingerprint,
                succeeded,
                restarts: state.restarts(),
                reason: state.failed_container().unwrap_or_default(),
            });
        }
        seen
    }
}
