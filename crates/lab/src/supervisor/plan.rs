//! The pods that should run, from the objects and from what became of the pods of Jobs. Starting and stopping them is `reconcile`'s.

use std::collections::{BTreeMap, btree_map::Entry};

use kube_types::ObjectRef;
use tokio::time::Instant;

use super::{PodKey, Supervisor};
use crate::{
    control::Phase,
    workloads::{
        self, Planned,
        jobs::{self, Jobs},
    },
};

/// Jobs, and the pods that they need now.
#[derive(Default)]
pub(super) struct JobController {
    jobs: Jobs,
    pub(super) plan: jobs::Plan,
}

impl Supervisor {
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
        let candidates = self.cluster.candidates();
        let mut objects = self.all_objects();
        objects.retain(|key, _| !self.findings.review.refused.contains(key));
        self.jobs.plan = self.jobs.jobs.plan(&objects, &self.seen_of_jobs(), Instant::now());
        let system = self.mesh.as_ref().map(|mesh| mesh.pods(&self.cluster.system_nodes()));
        let system = system.transpose().unwrap_or_else(|err| {
            problems.push(format!("manifests of the mesh: {err}"));
            None
        });
        let users = workloads::expand(&objects, &candidates, &self.jobs.plan.pods);
        // The mesh's own come first: of two pods with one name the first runs.
        let all: Vec<_> = system.into_iter().flatten().chain(users).collect();
        let mut planned = BTreeMap::new();
        self.findings.without_image = 0;
        for pod in all {
            // Reported once as a number and not as a problem: manifests of real applications have many of them, and
            // they are no mistake.
            if workloads::without_command(&pod.pod.spec).is_some() {
                self.findings.without_image += 1;
                continue;
            }
            match planned.entry(pod.key()) {
                Entry::Vacant(entry) => drop(entry.insert(pod)),
                Entry::Occupied(entry) => {
                    let (namespace, name) = entry.key();
                    problems.push(format!("pod {namespace}/{name} is described twice: only one of them runs"));
                }
            }
        }
        planned
    }

    /// Outcomes of the pods of each Job.
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
