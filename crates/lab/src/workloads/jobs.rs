//! Decides how many pods a Job needs at a time, when one that failed is tried again, and when the Job has failed. Pods are made
//! and stopped elsewhere.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube_types::core::JobSpec;
use kube_types::{ObjectRef, Resource};
use tokio::time::Instant;

use super::{JobPods, Objects, digest};

/// `backoffLimit` when nothing is said.
const BACKOFF_LIMIT: u32 = 6;

/// Pause before the first retry; each further one is twice as long. Kubernetes begins with 10 s.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A pod of a Job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its number among the Job's pods.
    pub(crate) number: u32,
    pub(crate) fingerprint: u64,
    /// `None` while it runs, else true if it succeeded.
    pub(crate) succeeded: Option<bool>,
    /// Restarts of all its containers.
    pub(crate) restarts: u32,
    /// Reason why it failed or its container was started again.
    pub(crate) reason: String,
}

/// Memory of what became of each Job.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    records: BTreeMap<ObjectRef, Record>,
}

#[derive(Debug, Default)]
struct Record {
    fingerprint: u64,
    /// Number of the next pod.
    next: u32,
    failures: u32,
    retry_at: Option<Instant>,
    verdict: Option<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Complete,
    Failed(String),
}

/// Needs of all Jobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) pods: JobPods,
    /// Jobs that will not complete, and why.
    pub(crate) problems: Vec<String>,
    /// Jobs that are not complete and have not failed.
    pub(crate) waiting: Vec<String>,
    /// When to look again.
    pub(crate) wake: Option<Instant>,
}

impl Jobs {
    /// Decides from the pods that each Job has now.
    pub(crate) fn plan(&mut self, objects: &Objects, seen: &BTreeMap<ObjectRef, Vec<Seen>>, now: Instant) -> Plan {
        self.records.retain(|key, _| objects.contains_key(key));
        let mut plan = Plan::default();
        for (key, resource) in objects {
            let Resource::Job(job) = resource else { continue };
            let pods = seen.get(key).map(Vec::as_slice).unwrap_or_default();
            let fingerprint = digest(&job.spec.template);
            let record = self.records.entry(key.clone()).or_default();
            if record.fingerprint != fingerprint {
                // Another template is another Job: Kubernetes would refuse the change.
                *record = Record { fingerprint, ..Record::default() };
            }
            let pods: Vec<_> = pods.iter().filter(|pod| pod.fingerprint == fingerprint).collect();
            plan.pods.insert(key.clone(), record.numbers(&job.spec, &pods, now));
            match &record.verdict {
                Some(Verdict::Failed(reason)) => plan.problems.push(format!("{key} failed: {reason}")),
                Some(Verdict::Complete) => {}
                // Suspended by its user: readiness of the lab does not depend on it.
                None if job.spec.suspend => {}
                None => {
                    let succeeded = count(pods.iter().filter(|pod| pod.succeeded == Some(true)));
                    let retry = record.retry_at.filter(|at| *at > now);
                    let after = retry.map_or("", |_| ", tried again in a moment");
                    plan.waiting.push(format!("{key}: {succeeded} of {} completed{after}", wanted(&job.spec)));
                    plan.wake = [plan.wake, retry].into_iter().flatten().min();
                }
            }
        }
        plan
    }
}

impl Record {
    /// Numbers of the pods that should exist.
    fn numbers(&mut self, spec: &JobSpec, pods: &[&Seen], now: Instant) -> BTreeSet<u32> {
        let ended = pods.iter().filter(|pod| pod.succeeded.is_some()).map(|pod| pod.number);
        let mut numbers: BTreeSet<_> = ended.collect();
        let active: Vec<_> = pods.iter().filter(|pod| pod.succeeded.is_none()).map(|pod| pod.number).collect();
        // Numbers of pods that have ended are not used again, also when the lab has forgotten the pod: the pod's name
        // follows from its number.
        self.next = self.next.max(pods.iter().map(|pod| pod.number + 1).max().unwrap_or_default());
        let succeeded = count(pods.iter().filter(|pod| pod.succeeded == Some(true)));
        let wanted = wanted(spec);
        if self.verdict.is_none() {
            self.verdict = self.judge(spec, pods, wanted.saturating_sub(succeeded), now);
        }
        if self.verdict.is_some() || spec.suspend {
            return numbers;
        }
        // No more pods than successes are missing: a pod beyond that would do work that nobody asked for.
        let parallel = spec.parallelism.unwrap_or(1).min(wanted.saturating_sub(succeeded));
        let missing = parallel.saturating_sub(count(active.iter()));
        numbers.extend(active);
        if self.retry_at.is_none_or(|at| at <= now) {
            numbers.extend(self.next..self.next + missing);
        }
        numbers
    }

    fn judge(&mut self, spec: &JobSpec, pods: &[&Seen], missing: u32, now: Instant) -> Option<Verdict> {
        if missing == 0 {
            return Some(Verdict::Complete);
        }
        let failed = pods.iter().filter(|pod| pod.succeeded == Some(false));
        // Containers that are started again in their pod count like pods that failed.
        let restarts: u32 = pods.iter().filter(|pod| pod.succeeded.is_none()).map(|pod| pod.restarts).sum();
        let failed_pods = count(failed.clone());
        let limit = spec.backoff_limit.unwrap_or(BACKOFF_LIMIT);
        let failures = failed_pods + restarts;
        if failures > limit {
            let last = failed.chain(pods.iter().filter(|pod| pod.restarts > 0)).next_back();
            let reason = last.map(|pod| pod.reason.as_str()).unwrap_or_default();
            let tries = if failures == 1 { "1 failure".to_owned() } else { format!("{failures} failures") };
            return Some(Verdict::Failed(format!("{reason} ({tries}, backoffLimit is {limit})")));
        }
        // The pause begins once, when the failure is first seen. Each reconciliation would otherwise begin it anew.
        if failed_pods > self.failures {
            self.failures = failed_pods;
            // 16, because a shift by 32 or more would overflow; `RETRY_MAX` is reached long before.
            let pause = RETRY_MIN.saturating_mul(1 << (failed_pods - 1).min(16)).min(RETRY_MAX);
            self.retry_at = Some(now + pause);
        }
        None
    }
}

/// Number of pods that have to succeed.
fn wanted(spec: &JobSpec) -> u32 {
    spec.completions.or(spec.parallelism).unwrap_or(1)
}

fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use kube_types::Kind;
    use serde_json::json;

    use super::*;

    struct Case {
        objects: Objects,
        key: ObjectRef,
        jobs: Jobs,
        seen: Vec<Seen>,
        now: Instant,
    }

    impl Case {
        fn new(spec: serde_json::Value) -> Self {
            let job = Resource::from_value(Kind::Job, json!({"metadata": {"name": "j"}, "spec": spec})).unwrap();
            let key = job.key();
            let objects = Objects::from([(key.clone(), job)]);
            Self { objects, key, jobs: Jobs::default(), seen: Vec::new(), now: Instant::now() }
        }

        /// Plans, and lets the pods begin that are new.
        fn step(&mut self) -> Plan {
            let seen = BTreeMap::from([(self.key.clone(), self.seen.clone())]);
            let plan = self.jobs.plan(&self.objects, &seen, self.now);
            let Some(Resource::Job(job)) = self.objects.get(&self.key) else { unreachable!() };
            let fingerprint = digest(&job.spec.template);
            self.seen.retain(|pod| plan.pods[&self.key].contains(&pod.number));
            for number in &plan.pods[&self.key] {
                if self.seen.iter().all(|pod| pod.number != *number) {
                    let (succeeded, restarts, reason) = (None, 0, String::new());
                    self.seen.push(Seen { number: *number, fingerprint, succeeded, restarts, reason });
                }
            }
            plan
        }

        fn end(&mut self, number: u32, well: bool) {
            let pod = self.seen.iter_mut().find(|pod| pod.number == number).unwrap();
            pod.succeeded = Some(well);
            pod.reason = if well { String::new() } else { "container c exited with 1".to_owned() };
        }

        fn active(&self) -> usize {
            self.seen.iter().filter(|pod| pod.succeeded.is_none()).count()
        }
    }

    #[test]
    fn a_job_runs_as_many_pods_at_once_as_its_parallelism_until_it_is_complete() {
        let mut case = Case::new(json!({"completions": 3, "parallelism": 2}));

        case.step();
        assert_eq!(case.active(), 2);
        case.end(0, true);
        assert_eq!(case.step().waiting, ["Job j: 1 of 3 completed"]);
        assert_eq!(case.active(), 2);
        case.end(1, true);
        case.end(2, true);
        let plan = case.step();

        assert_eq!((case.active(), case.seen.len()), (0, 3));
        assert_eq!((plan.problems, plan.waiting, plan.wake), (vec![], vec![], None));
    }

    #[test]
    fn a_failed_pod_is_followed_by_another_after_a_pause() {
        let mut case = Case::new(json!({}));
        case.step();
        case.end(0, false);

        let plan = case.step();
        assert_eq!(case.active(), 0);
        assert_eq!(plan.waiting, ["Job j: 0 of 1 completed, tried again in a moment"]);
        case.now = plan.wake.unwrap();
        case.step();
        assert_eq!(case.active(), 1);
        case.end(1, true);

        assert_eq!(case.step().problems, Vec::<String>::new());
    }

    #[test]
    fn a_job_that_fails_too_often_says_what_its_container_did() {
        let mut case = Case::new(json!({"backoffLimit": 0, "parallelism": 2, "completions": 2}));
        case.step();
        case.end(1, false);

        let plan = case.step();

        assert_eq!(
            plan.problems,
            ["Job j failed: container c exited with 1 (1 failure, backoffLimit is 0)"],
            "{:?}",
            case.seen
        );
        assert_eq!(case.active(), 0, "the other pod of a failed Job is stopped");
        assert_eq!(plan.wake, None);
    }

    #[test]
    fn restarts_in_a_pod_count_as_failures() {
        let mut case = Case::new(json!({"backoffLimit": 2}));
        case.step();
        case.seen[0].restarts = 2;
        assert_eq!(case.step().problems, Vec::<String>::new());
        case.seen[0].restarts = 3;

        assert_eq!(case.step().problems.len(), 1);
        assert_eq!(case.active(), 0);
        assert_eq!(case.step().problems.len(), 1, "it stays failed");
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let mut case = Case::new(json!({"suspend": true}));

        case.step();

        assert_eq!(case.active(), 0);
    }
}
