//! Events on objects of which a part is not in force: for `kubectl describe`. They are facts about the state, not a history:
//! each fact that stands has one Event, which is repeated while it stands. What the facts are is in `fact`, how an Event is
//! written in `post`.

mod fact;
mod post;
mod standing;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use graph::{Finding, PolicyState};
use kube_cluster::{Objects, Rule, Verb};
use kube_types::{ObjectRef, SourceProblem, Subject};
use parking_lot::Mutex;
use runtime::Backoff;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::conditions::StatusUpdate;
use fact::Fact;
use post::{Outcome, post};
use standing::{Origin, Standing};

/// Time between two Events: five a second for all objects together.
const INTERVAL: Duration = Duration::from_millis(200);

/// Time between two looks of a replica that does not lead.
const LOOK: Duration = Duration::from_secs(1);

/// Pauses after failures of the API server.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Facts that stand, for the Events about them. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    standing: Standing,
    /// uids of policies, whose conditions come without them.
    policies: HashMap<ObjectRef, String>,
    /// Objects with problems, by place in the source.
    problems: HashMap<PathBuf, Vec<Subject>>,
}

impl Events {
    /// Replaces the findings about an object.
    pub(crate) fn findings(&self, object: &ObjectRef, uid: Option<&str>, findings: &[Finding]) {
        let facts = findings.iter().filter_map(Fact::of_finding).collect();
        self.replace(&subject(object, uid), Origin::Findings, facts);
    }

    /// Takes the state of a policy, whose conditions follow; `None` when it is gone.
    pub(crate) fn policy(&self, object: &ObjectRef, uid: Option<&str>, state: Option<&PolicyState>) {
        let mut inner = self.0.inner.lock();
        match state {
            Some(_) => drop(inner.policies.insert(object.clone(), uid.unwrap_or_default().to_owned())),
            None => drop(inner.policies.remove(object)),
        }
    }

    /// Replaces the conditions of an object.
    pub(crate) fn conditions(&self, update: &StatusUpdate) {
        let facts: Vec<_> = update.status.conditions.iter().filter_map(Fact::of_condition).collect();
        let uid = self.0.inner.lock().policies.get(&update.object).cloned();
        self.replace(&subject(&update.object, uid.as_deref()), Origin::Conditions, facts);
    }

    /// Adds a problem of the source. Only those of objects have Events.
    pub(crate) fn problem(&self, problem: &SourceProblem) {
        let Some(fact) = Fact::of_problem(problem) else { return };
        let mut inner = self.0.inner.lock();
        inner.problems.entry(problem.file.clone()).or_default().push(problem.subject.clone());
        inner.standing.replace(&problem.subject, Origin::Source, vec![fact], Instant::now());
        self.0.wake.notify_one();
    }

    /// Takes back the problems of a place.
    pub(crate) fn solved(&self, place: &Path) {
        let mut inner = self.0.inner.lock();
        for subject in inner.problems.remove(place).into_iter().flatten() {
            inner.standing.replace(&subject, Origin::Source, Vec::new(), Instant::now());
        }
    }

    fn replace(&self, subject: &Subject, origin: Origin, facts: Vec<Fact>) {
        self.0.inner.lock().standing.replace(subject, origin, facts, Instant::now());
        self.0.wake.notify_one();
    }

    /// Writes Events while `is_leading`; ends never. Dropping it is safe: facts that stand are written by whoever leads next.
    pub(crate) async fn run(self, objects: Objects, is_leading: impl Fn() -> bool, instance: String) {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        let mut is_told = false;
        loop {
            if !is_leading() {
                sleep(LOOK).await;
                continue;
            }
            let now = Instant::now();
            let (next, waiting) = {
                let inner = self.0.inner.lock();
                (inner.standing.next(now), inner.standing.waiting(now))
            };
            metrics::gauge!("strake_control_events_waiting").set(waiting as f64);
            let Some((due, event)) = next else {
                self.0.wake.notified().await;
                continue;
            };
            if due > now {
                // The leadership may end meanwhile, and an earlier fact may come.
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.0.wake.notified() => {}
                }
                continue;
            }
            let outcome = post(&objects, &event, &instance).await;
            metrics::counter!("strake_control_events_total", "outcome" => outcome.name()).increment(1);
            self.0.inner.lock().standing.on_outcome(&event, &outcome, Instant::now());
            match outcome {
                Outcome::Created | Outcome::Repeated | Outcome::Current { .. } => {
                    is_told = false;
                    backoff.reset();
                    sleep(INTERVAL).await;
                }
                Outcome::Failed(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, code = "event_not_written", "failed to write an Event; trying again");
                    }
                    sleep(backoff.pause()).await;
                }
            }
        }
    }
}

fn subject(object: &ObjectRef, uid: Option<&str>) -> Subject {
    Subject { uid: uid.unwrap_or_default().to_owned(), ..Subject::from(object) }
}

/// RBAC rule of Events. They are in the namespaces of their objects, and a new object has no name in its request.
pub(crate) fn permissions() -> Rule {
    Rule {
        namespace: None,
        api_group: String::new(),
        resource: "events".to_owned(),
        names: Vec::new(),
        verbs: vec![Verb::Get, Verb::Create, Verb::Patch],
    }
}

#[cfg(test)]
mod tests;
