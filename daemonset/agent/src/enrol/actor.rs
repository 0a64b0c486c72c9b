//! One task per pod: brings the pod where it is wanted, keeps it there, and tells how far it is.
//! It does one thing at a time for its pod; pods do not wait for each other.

use std::sync::Arc;
use std::time::Duration;

use model::report::PodState;
use runtime::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::claim::{Cause, Claim};
use super::entering::{Enrolled, Located, Proved, prove};
use super::leaving::{Drain, Withdrawn, undo};
use super::{Node, Place, PodSpec, Proof, Redirection, StepError, failing};
use crate::metrics;
use crate::report::View;

/// Where a pod is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// In the mesh.
    In,
    /// Not in the mesh, for this reason; its connections may finish.
    Out { reason: String },
    /// Not in the mesh, and its processes have ended.
    Finished { reason: String },
    /// The pod no longer exists.
    Gone,
}

/// A pod and where it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    pub pod: PodSpec,
    pub wanted: Wanted,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// `--unenrol-grace`: how long a pod that leaves keeps its proxied connections.
    pub unenrol_grace: Duration,
    /// Pause between two proofs of an enrolled pod.
    pub proof_interval: Duration,
    /// First pause after a failure.
    pub retry_min: Duration,
    /// Longest pause after failures in a row.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            unenrol_grace: Duration::from_secs(30),
            proof_interval: Duration::from_secs(3),
            retry_min: Duration::from_millis(25),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// Removals of a pod that is gone, before what is left is left to the next sweep.
const REMOVAL_TRIES: u32 = 8;

/// What is to be done once a goal was pursued.
enum Next {
    /// Nothing, until the goal changes.
    Wait,
    /// The goal changed meanwhile.
    Again,
    /// The pod is gone.
    End,
}

/// The task's state.
pub struct Actor<N> {
    node: Arc<N>,
    goal: watch::Receiver<Goal>,
    /// Ticks when something changed that any pod may depend on, such as a proxy's connection.
    nudge: watch::Receiver<u64>,
    view: View,
    timing: Timing,
    /// The namespace in which something of ours may be.
    footprint: Option<Arc<Place>>,
    /// Whether an earlier agent may have left something in the pod.
    unexplored: bool,
    /// Something was claimed of the pod before this task: then something of ours was in it.
    inherited: bool,
    claim: Claim,
    /// The proxy does not serve the pod although the cluster was told that it is enrolled.
    unserved: bool,
    /// Since when the pod leaves: the grace period is one, whatever changes meanwhile.
    leaving_since: Option<Instant>,
    failures: u32,
}

impl<N: Node> Actor<N> {
    /// `claim`: what an earlier agent or task told the cluster of the pod.
    /// `footprint`: the namespace in which it enrolled it.
    pub fn new(
        node: Arc<N>,
        goal: watch::Receiver<Goal>,
        nudge: watch::Receiver<u64>,
        view: View,
        timing: Timing,
        claim: Claim,
        footprint: Option<Arc<Place>>,
    ) -> Self {
        Self {
            node,
            goal,
            nudge,
            view,
            timing,
            footprint,
            unexplored: true,
            inherited: claim != Claim::None,
            claim,
            unserved: false,
            leaving_since: None,
            failures: 0,
        }
    }

    /// Runs until the pod is gone, or until nobody sets goals any more: then everything stays as it is.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.timing.retry_min, self.timing.retry_max);
        loop {
            let Goal { pod, wanted } = self.goal.borrow_and_update().clone();
            let outcome = match wanted {
                Wanted::In => self.stay_in(&pod, &mut backoff).await,
                Wanted::Out { reason } => self.leave(&pod, &reason).await,
                Wanted::Finished { reason } => self.finish(&pod, &reason).await,
                Wanted::Gone => self.vanish(&pod).await,
            };
            let open = match outcome {
                Ok(Next::End) => return,
                Ok(Next::Again) => {
                    self.settle(&mut backoff);
                    true
                }
                Ok(Next::Wait) => {
                    self.settle(&mut backoff);
                    self.goal.changed().await.is_ok()
                }
                Err(error) => self.pause(&pod, &error, &mut backoff).await,
            };
            if !open {
                return;
            }
        }
    }

    fn settle(&mut self, backoff: &mut Backoff) {
        self.failures = 0;
        backoff.reset();
    }

    /// Waits after a failure, less when the goal or the node changes. False when nobody sets goals any more.
    async fn pause(&mut self, pod: &PodSpec, error: &StepError, backoff: &mut Backoff) -> bool {
        self.failures += 1;
        metrics::step_failed(error.code());
        let checks = match error {
            StepError::Unproved { checks } => Some(checks.clone()),
            StepError::Failed { .. } | StepError::Leftovers { .. } => None,
        };
        self.view.failed(&error.to_string(), checks);
        let pause = backoff.pause();
        let (pod, code, failures) = (pod.key.path(), error.code(), self.failures);
        // The first few and then ever fewer, because a pod may take minutes to start.
        if failures.is_power_of_two() {
            tracing::info!(pod, code, %error, failures, "a step failed and is tried again");
        } else {
            tracing::debug!(pod, code, %error, failures, "a step failed and is tried again");
        }
        tokio::select! {
            () = sleep(pause) => true,
            changed = self.goal.changed() => changed.is_ok(),
            _ = self.nudge.changed() => true,
        }
    }

    async fn stay_in(&mut self, pod: &PodSpec, backoff: &mut Backoff) -> Result<Next, StepError> {
        self.leaving_since = None;
        let begun = Instant::now();
        let enrolled = match self.enter(pod).await {
            Ok(enrolled) => enrolled,
            Err(error) => {
                // What is where it was left counts, not which step failed: without a place nothing is known.
                let proof = match &self.footprint {
                    Some(place) => prove(&*self.node, pod, place, Instant::now()).await,
                    None => Proof::default(),
                };
                self.doubt(pod, &proof, &error).await?;
                return Err(error);
            }
        };
        metrics::enrolled(begun.elapsed());
        self.settle(backoff);
        self.unserved = false;
        self.view.enrolled(&enrolled.place, enrolled.proof.checks());
        loop {
            tokio::select! {
                changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
                _ = self.nudge.changed() => {}
                () = sleep(self.timing.proof_interval) => {}
            }
            let proof = self.look_again(pod, &enrolled.place).await;
            if !proof.holds() {
                count_repairs(pod, &proof);
                let error = StepError::Unproved { checks: proof.checks() };
                self.doubt(pod, &proof, &error).await?;
                return Err(error);
            }
            self.view.enrolled(&enrolled.place, proof.checks());
        }
    }

    /// The regular proof of an enrolled pod. It shares what is not too old with the proofs of other pods; but what is old
    /// accuses nobody.
    async fn look_again(&self, pod: &PodSpec, place: &Arc<Place>) -> Proof {
        let now = Instant::now();
        let oldest = now.checked_sub(self.timing.proof_interval / 2).unwrap_or(now);
        let proof = prove(&*self.node, pod, place, oldest).await;
        if proof.holds() { proof } else { prove(&*self.node, pod, place, Instant::now()).await }
    }

    async fn enter(&mut self, pod: &PodSpec) -> Result<Enrolled, StepError> {
        if self.failures == 0 && !self.claim.may_count() {
            self.view.state(PodState::Enrolling, "");
        }
        let place = self.node.locate(pod).await?;
        let place = self.recognise(place).await?;
        self.unexplored = false;
        let proof = prove(&*self.node, pod, &place, Instant::now()).await;
        if proof.holds() {
            return self.claim(Proved::from(place, proof)?, pod).await;
        }
        if proof.is_open() {
            self.withdraw(pod, &Cause::Unproved(failing(&proof.checks()))).await?;
        }
        let steered = Located(place).steer(&*self.node, pod).await?;
        let proved = steered.announce(&*self.node, pod).await?.prove(&*self.node, pod).await?;
        self.claim(proved, pod).await
    }

    async fn claim(&mut self, proved: Proved, pod: &PodSpec) -> Result<Enrolled, StepError> {
        match self.claim {
            Claim::Told(Redirection::Enabled) => Ok(proved.already_claimed()),
            Claim::None | Claim::Uncertain | Claim::Told(Redirection::Pending) => {
                self.claim = Claim::Uncertain;
                let enrolled = proved.claim(&*self.node, pod).await?;
                self.claim = Claim::Told(Redirection::Enabled);
                Ok(enrolled)
            }
        }
    }

    /// Keeps the namespace that we work in, or moves to another: a pod that was sandboxed anew has one, and what is in the
    /// old one is of no use.
    async fn recognise(&mut self, found: Arc<Place>) -> Result<Arc<Place>, StepError> {
        match self.footprint.take() {
            Some(known) if known.cookie == found.cookie && known.interface == found.interface => {
                self.footprint = Some(known.clone());
                return Ok(known);
            }
            Some(earlier) if earlier.cookie != found.cookie => {
                undo(&*self.node, &earlier).await.inspect_err(|_| self.footprint = Some(earlier))?;
            }
            Some(_) | None => {}
        }
        self.footprint = Some(found.clone());
        Ok(found)
    }

    /// Takes a claim back when traffic may pass the proxy by. Where only the proxy is missing the claim stays, however
    /// long that takes: the pod is closed meanwhile, whereas peers that hear it left the mesh send plaintext, which the
    /// next proxy would take before they have heard better.
    async fn doubt(&mut self, pod: &PodSpec, proof: &Proof, error: &StepError) -> Result<(), StepError> {
        self.view.doubted(proof.checks());
        if proof.is_open() {
            let missing = failing(&proof.checks());
            let reason = if missing.is_empty() { error.to_string() } else { missing };
            return self.withdraw(pod, &Cause::Unproved(reason)).await;
        }
        if proof.holds() {
            return Ok(());
        }
        if self.claim == Claim::None {
            self.claim = Claim::Uncertain;
            self.node.annotate(pod, Some(Redirection::Pending)).await?;
            self.claim = Claim::Told(Redirection::Pending);
        }
        if self.claim.may_count() && !std::mem::replace(&mut self.unserved, true) {
            metrics::unserved();
            let (pod, reason) = (pod.key.path(), failing(&proof.checks()));
            tracing::warn!(pod, reason, "the proxy does not serve an enrolled pod: it is closed, and stays announced");
        }
        Ok(())
    }

    async fn withdraw(&mut self, pod: &PodSpec, cause: &Cause<'_>) -> Result<(), StepError> {
        if self.claim != Claim::None {
            self.node.annotate(pod, None).await?;
            if self.claim.may_count() {
                metrics::withdrawn();
                cause.log(pod);
            }
            self.claim = Claim::None;
        }
        Ok(())
    }

    async fn leave(&mut self, pod: &PodSpec, reason: &str) -> Result<Next, StepError> {
        self.withdraw(pod, &Cause::Unwanted(reason)).await?;
        let Some(place) = self.explore(pod).await? else {
            self.view.outside(reason);
            return Ok(Next::Wait);
        };
        self.view.state(PodState::Leaving, reason);
        let since = *self.leaving_since.get_or_insert_with(Instant::now);
        let draining = Withdrawn(place).stop_capturing(&*self.node, pod, since, self.timing.unenrol_grace).await?;
        let (drained, how) = tokio::select! {
            drained = draining.drain(&*self.node) => drained?,
            changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
        };
        if how == Drain::Expired {
            metrics::drain_expired();
            tracing::info!(pod = %pod.key.path(), "the grace period is over, remaining proxied connections are cut");
        }
        drained.remove(&*self.node, pod).await?;
        self.leaving_since = None;
        self.footprint = None;
        metrics::left();
        self.view.outside(reason);
        Ok(Next::Wait)
    }

    /// Where something of ours may be in a pod that is not wanted in the mesh.
    async fn explore(&mut self, pod: &PodSpec) -> Result<Option<Arc<Place>>, StepError> {
        if self.unexplored && self.footprint.is_none() {
            let place = match self.node.locate(pod).await {
                Ok(place) => place,
                // Something of ours was in it: that it is gone is not known before its namespace was looked into.
                Err(error) if self.inherited => return Err(error),
                // Not running yet: looked into when its addresses are known.
                Err(_) => return Ok(None),
            };
            self.footprint = self.node.has_entry(&place).await?.then_some(place);
        }
        self.unexplored = false;
        Ok(self.footprint.clone())
    }

    async fn finish(&mut self, pod: &PodSpec, reason: &str) -> Result<Next, StepError> {
        self.withdraw(pod, &Cause::Unwanted(reason)).await?;
        self.remove_now(pod).await?;
        self.view.outside(reason);
        Ok(Next::Wait)
    }

    async fn vanish(&mut self, pod: &PodSpec) -> Result<Next, StepError> {
        self.view.state(PodState::Leaving, "the pod was deleted");
        // What is in kernel and proxy does not wait for a cluster that cannot be written to.
        let removed = self.remove_now(pod).await;
        let told = self.node.forget_annotation(pod).await;
        match removed.and(told) {
            Err(error) if self.failures < REMOVAL_TRIES => Err(error),
            Err(error) => {
                tracing::error!(pod = %pod.key.path(), code = error.code(), %error, "a deleted pod left something behind");
                Ok(Next::End)
            }
            Ok(()) => Ok(Next::End),
        }
    }

    async fn remove_now(&mut self, pod: &PodSpec) -> Result<(), StepError> {
        match self.footprint.clone() {
            Some(place) => {
                Withdrawn(place).skip_draining().remove(&*self.node, pod).await?;
                metrics::left();
            }
            // Never enrolled by us, and maybe known to a proxy from a snapshot.
            None => self.node.dismiss(pod).await?,
        }
        self.footprint = None;
        self.claim = Claim::None;
        Ok(())
    }
}

fn count_repairs(pod: &PodSpec, proof: &Proof) {
    for fact in proof.0.iter().filter(|fact| !fact.check.ok) {
        metrics::repair(&fact.check.name);
        let (pod, check, detail) = (pod.key.path(), &fact.check.name, &fact.check.detail);
        tracing::warn!(pod, check, detail, "the proof of an enrolled pod failed");
    }
}
