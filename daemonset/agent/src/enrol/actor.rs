//! One task per pod: brings the pod where it is wanted, keeps it there, and tells how far it is.
//! It does one thing at a time for its pod; pods do not wait for each other.

use std::sync::Arc;

use contract::admin::agent::PodState;
use runtime::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::claim::Claim;
use super::entering::{Enrolled, Located, Proved, prove};
use super::goal::{Goal, Timing, Wanted};
use super::leaving::{Dismissal, Drain, Withdrawn, undo};
use super::{Node, Place, PodSpec, Proof, Redirection, StepError, Verdict, repairing};
use crate::metrics;
use crate::report::View;

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
    /// What the last proof said of a pod that the cluster takes for enrolled; alarms are raised when it changes.
    verdict: Verdict,
    /// The last proof met an annotation that is not the agent's. The next one corrects it: an event may be late.
    annotation_missed: bool,
    /// Nothing of ours is left in the kernel, and a proxy has not confirmed yet that it no longer serves the pod.
    dismissal: Dismissal,
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
            verdict: Verdict::Holds,
            annotation_missed: false,
            dismissal: Dismissal::Confirmed,
            leaving_since: None,
            failures: 0,
        }
    }

    /// Runs until the pod is gone, or until nobody sets goals any more: then everything stays as it is.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(self.timing.retry_min, self.timing.retry_max);
        loop {
            let Goal { pod, wanted, annotated } = self.goal.borrow_and_update().clone();
            let outcome = match wanted {
                Wanted::In => self.stay_in(&pod, &mut backoff).await,
                Wanted::Out { reason } => self.leave(&pod, &reason, annotated).await,
                Wanted::Finished { reason } => self.finish(&pod, &reason, annotated).await,
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
        self.view.failed(self.failure(), &error.to_string(), checks);
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

    /// State of a pod for which a step failed.
    fn failure(&self) -> PodState {
        match self.verdict {
            // The proof holds and another step failed, or the pod is not announced as enrolled.
            Verdict::Holds => PodState::Failed,
            Verdict::Unverified => PodState::Unverified,
            Verdict::Unserved | Verdict::Blocked | Verdict::Open => PodState::Broken,
        }
    }

    async fn stay_in(&mut self, pod: &PodSpec, backoff: &mut Backoff) -> Result<Next, StepError> {
        self.leaving_since = None;
        self.dismissal = Dismissal::Confirmed;
        let begun = Instant::now();
        let enrolled = match self.enter(pod).await {
            Ok(enrolled) => enrolled,
            Err(error) => {
                // What is where it was left counts, not which step failed: without a place nothing is known.
                let proof = match &self.footprint {
                    Some(place) => prove(&*self.node, pod, place, Instant::now()).await,
                    None => Proof::unreadable(&error.to_string()),
                };
                self.assess(pod, &proof).await?;
                return Err(error);
            }
        };
        metrics::enrolled(begun.elapsed());
        self.settle(backoff);
        self.verdict = Verdict::Holds;
        self.view.enrolled(&enrolled.place, enrolled.proof.checks());
        self.keep_proved(pod, &enrolled.place).await
    }

    /// Proves an enrolled pod again and again, until its goal changes or a proof does not hold.
    async fn keep_proved(&mut self, pod: &PodSpec, place: &Arc<Place>) -> Result<Next, StepError> {
        let mut watch = repairing::watch(&*self.node, pod, place);
        let (mut due, mut quiet_until) = (Instant::now() + self.timing.proof_interval, Instant::now());
        let mut hazards_due = Instant::now();
        loop {
            if Instant::now() >= hazards_due {
                repairing::report_hazards(&*self.node, pod, place, &self.view).await;
                hazards_due = Instant::now() + repairing::HAZARD_INTERVAL;
            }
            // Every arm is cancel-safe.
            tokio::select! {
                changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
                () = repairing::disturbed(&mut watch, quiet_until) => {
                    quiet_until = Instant::now() + repairing::MEND_PAUSE;
                    // What cannot be mended is proved at once, and repaired by all steps.
                    if repairing::mend(&*self.node, pod, place).await {
                        continue;
                    }
                }
                _ = self.nudge.changed() => {}
                () = sleep_until(due) => {}
            }
            due = Instant::now() + self.timing.proof_interval;
            let proof = self.look_again(pod, place).await;
            if !proof.holds() {
                repairing::count(pod, &proof);
                self.assess(pod, &proof).await?;
                return Err(StepError::Unproved { checks: proof.checks() });
            }
            self.view.enrolled(place, proof.checks());
            self.correct_annotation(pod).await?;
        }
    }

    /// Writes the annotation again when it no longer says what was written: peers go by it.
    async fn correct_annotation(&mut self, pod: &PodSpec) -> Result<(), StepError> {
        let seen = self.goal.borrow().annotated;
        if self.claim == Claim::Told(Redirection::Enabled) && seen != Some(Redirection::Enabled) {
            if std::mem::replace(&mut self.annotation_missed, true) {
                self.node.annotate(pod, Some(Redirection::Enabled)).await?;
                metrics::annotation_corrected();
                let found = seen.map_or("not set", Redirection::as_str);
                tracing::warn!(
                    pod = pod.key.path(),
                    found,
                    "somebody else changed the annotation of an enrolled pod; it is set again"
                );
                self.annotation_missed = false;
            }
        } else {
            self.annotation_missed = false;
        }
        Ok(())
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
        match proof.verdict() {
            Verdict::Holds => return self.claim(Proved::from(place, proof)?, pod).await,
            // Nothing is known to be wrong with a pod that was enrolled: it is read again, and left alone.
            Verdict::Unverified if self.claim.may_count() => {
                return Err(StepError::Unproved { checks: proof.checks() });
            }
            Verdict::Unverified | Verdict::Unserved | Verdict::Blocked | Verdict::Open => {}
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

    /// Draws conclusions from a proof that may not hold. The pod stays announced as it was: a peer that hears that it left
    /// the mesh sends plaintext, which only the user may ask for. While the proof does not hold, an alarm says so.
    async fn assess(&mut self, pod: &PodSpec, proof: &Proof) -> Result<(), StepError> {
        self.view.doubted(proof.checks());
        let verdict = proof.verdict();
        proof.unread().for_each(|fact| metrics::unreadable(fact.name()));
        if verdict == Verdict::Unserved && self.claim == Claim::None {
            self.claim = Claim::Uncertain;
            self.node.annotate(pod, Some(Redirection::Pending)).await?;
            self.claim = Claim::Told(Redirection::Pending);
        }
        let verdict = if self.claim.may_count() { verdict } else { Verdict::Holds };
        if std::mem::replace(&mut self.verdict, verdict) != verdict {
            repairing::alarm(pod, verdict, &proof.complaint());
        }
        Ok(())
    }

    async fn withdraw(&mut self, pod: &PodSpec, reason: &str, annotated: Option<Redirection>) -> Result<(), StepError> {
        if self.claim == Claim::None {
            // Somebody else announces it.
            self.claim = annotated.into();
        }
        if self.claim != Claim::None {
            self.node.annotate(pod, None).await?;
            if self.claim.may_count() {
                metrics::withdrawn();
                tracing::info!(pod = pod.key.path(), reason, "a pod leaves and is no longer announced as enrolled");
            }
            self.claim = Claim::None;
        }
        self.verdict = Verdict::Holds;
        Ok(())
    }

    async fn leave(&mut self, pod: &PodSpec, reason: &str, annotated: Option<Redirection>) -> Result<Next, StepError> {
        self.withdraw(pod, reason, annotated).await?;
        let Some(place) = self.explore(pod).await? else {
            return self.outside(pod, reason).await;
        };
        self.view.state(PodState::Leaving, reason);
        let since = *self.leaving_since.get_or_insert_with(Instant::now);
        let draining = Withdrawn(place).stop_capturing(&*self.node, pod, since, self.timing.unenrol_grace).await?;
        let (drained, how) = tokio::select! {
            drained = draining.drain(&*self.node) => drained,
            changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
        };
        if how == Drain::Expired {
            metrics::drain_expired();
            tracing::info!(pod = %pod.key.path(), "the grace period is over, remaining proxied connections are cut");
        }
        self.dismissal = drained.remove(&*self.node, pod).await?;
        self.leaving_since = None;
        self.footprint = None;
        metrics::left();
        self.outside(pod, reason).await
    }

    /// Reports the pod as outside the mesh, once every proxy has confirmed that it no longer serves it.
    async fn outside(&mut self, pod: &PodSpec, reason: &str) -> Result<Next, StepError> {
        if self.dismissal == Dismissal::Unconfirmed {
            self.node.dismiss(pod).await?;
            self.dismissal = Dismissal::Confirmed;
        }
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

    async fn finish(&mut self, pod: &PodSpec, reason: &str, annotated: Option<Redirection>) -> Result<Next, StepError> {
        self.withdraw(pod, reason, annotated).await?;
        match self.footprint.clone() {
            Some(place) => {
                Withdrawn(place).skip_draining().remove_once_dismissed(&*self.node, pod).await?;
                metrics::left();
                self.footprint = None;
            }
            // Maybe known to a proxy from a snapshot.
            None => self.node.dismiss(pod).await?,
        }
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
                self.dismissal = Withdrawn(place).skip_draining().remove(&*self.node, pod).await?;
                metrics::left();
                self.footprint = None;
                self.claim = Claim::None;
            }
            // Never enrolled by us, and maybe known to a proxy from a snapshot.
            None => self.dismissal = Dismissal::Unconfirmed,
        }
        if self.dismissal == Dismissal::Unconfirmed {
            self.node.dismiss(pod).await?;
            self.dismissal = Dismissal::Confirmed;
        }
        Ok(())
    }
}
