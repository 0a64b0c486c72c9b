//! One task per pod: brings the pod where it is wanted, keeps it there, and tells how far it is.
//! It does one thing at a time for its pod; pods do not wait for each other.

use std::sync::Arc;

use contract::admin::agent::PodState;
use runtime::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::announcement::Announcement;
use super::entering::{Enrolled, Located, Proved, prove};
use super::goal::{Goal, Timing, Wanted};
use super::leaving::{Dismissal, Drain, Withdrawn, undo};
use super::{Node, Proof, Redirection, StepError, Verdict, repairing};
use crate::metrics;
use crate::pod::{LocalPod, PodNetns};
use crate::report::View;

/// Removals of a pod that is gone, before what is left is left to the next sweep.
const REMOVAL_TRIES: u32 = 8;

/// Next step after a goal was pursued.
enum Next {
    /// Nothing, until the goal changes.
    Wait,
    /// The goal changed meanwhile.
    Again,
    /// The pod is gone.
    End,
}

/// Knowledge of the namespace that is steered for the pod.
struct SteeredNetns {
    /// The namespace in which programs, rules or entries of the mesh may be.
    pod_netns: Option<Arc<PodNetns>>,
    /// True when an earlier agent enrolled the pod in that namespace, so that a proxy may serve it.
    taken_over: bool,
    /// True while an earlier agent may have left something in a namespace that is not known yet.
    unexplored: bool,
    /// The pod was announced before this task began: then its namespace was steered.
    was_announced: bool,
}

/// The task's state.
pub struct Actor<N> {
    node: Arc<N>,
    goal: watch::Receiver<Goal>,
    /// Ticks when something changed that any pod may depend on, such as a proxy's connection.
    node_changes: watch::Receiver<u64>,
    view: View,
    timing: Timing,
    steered: SteeredNetns,
    announcement: Announcement,
    /// Verdict of the last proof of a pod that the cluster takes for enrolled; alarms are raised when it changes.
    verdict: Verdict,
    /// The last proof met an annotation that is not the agent's. The next one corrects it: an event may be late.
    annotation_missed: bool,
    /// Nothing of the mesh is left in the kernel, and a proxy has not confirmed yet that it no longer serves the pod.
    dismissal: Dismissal,
    /// Since when the pod leaves: the grace period is one, whatever changes meanwhile.
    leaving_since: Option<Instant>,
    failures: u32,
}

impl<N: Node> Actor<N> {
    /// `announcement`: what an earlier agent or task told the cluster of the pod.
    /// `steered`: the namespace in which it enrolled it.
    pub fn new(
        node: Arc<N>,
        goal: watch::Receiver<Goal>,
        node_changes: watch::Receiver<u64>,
        view: View,
        timing: Timing,
        announcement: Announcement,
        steered: Option<Arc<PodNetns>>,
    ) -> Self {
        Self {
            node,
            goal,
            node_changes,
            view,
            timing,
            steered: SteeredNetns {
                taken_over: steered.is_some(),
                pod_netns: steered,
                unexplored: true,
                was_announced: announcement != Announcement::None,
            },
            announcement,
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
            // Marked as seen: a goal that changes while this one is pursued interrupts it at its next wait.
            let Goal { pod, wanted, annotated } = self.goal.borrow_and_update().clone();
            let outcome = match wanted {
                Wanted::In => self.stay_in(&pod, &mut backoff).await,
                Wanted::Out { reason } => self.leave(&pod, &reason, annotated).await,
                Wanted::Finished { reason } => self.finish(&pod, &reason, annotated).await,
                Wanted::Gone => self.remove_deleted(&pod).await,
            };
            // False once the controller has dropped the goal: the agent ends, and the pod stays as it is.
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
    async fn pause(&mut self, pod: &LocalPod, error: &StepError, backoff: &mut Backoff) -> bool {
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
            tracing::info!(pod, code, %error, failures, "enrolment step failed; trying again");
        } else {
            tracing::debug!(pod, code, %error, failures, "enrolment step failed; trying again");
        }
        tokio::select! {
            () = sleep(pause) => true,
            changed = self.goal.changed() => changed.is_ok(),
            // A proxy that has just connected is what most failed steps wait for.
            _ = self.node_changes.changed() => true,
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

    async fn stay_in(&mut self, pod: &LocalPod, backoff: &mut Backoff) -> Result<Next, StepError> {
        // A pod that comes back and leaves again has its whole grace period once more.
        self.leaving_since = None;
        self.dismissal = Dismissal::Confirmed;
        let begun = Instant::now();
        let enrolled = match self.enter(pod).await {
            Ok(enrolled) => enrolled,
            Err(error) => {
                // The facts in the namespace count, not which step failed: without a namespace nothing is known.
                let proof = match &self.steered.pod_netns {
                    Some(pod_netns) => prove(&*self.node, pod, pod_netns, Instant::now()).await,
                    None => Proof::unreadable(&error.to_string()),
                };
                self.assess(pod, &proof).await?;
                return Err(error);
            }
        };
        metrics::enrolled(begun.elapsed());
        self.settle(backoff);
        self.verdict = Verdict::Holds;
        self.view.enrolled(&enrolled.pod_netns, enrolled.proof.checks());
        self.keep_proved(pod, &enrolled.pod_netns).await
    }

    /// Proves an enrolled pod again and again, until its goal changes or a proof does not hold.
    async fn keep_proved(&mut self, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Result<Next, StepError> {
        let mut watch = repairing::watch(&*self.node, pod, pod_netns);
        // The first repair may come at once.
        let (mut due, mut quiet_until) = (Instant::now() + self.timing.proof_interval, Instant::now());
        let mut hazards_due = Instant::now();
        loop {
            if Instant::now() >= hazards_due {
                repairing::report_hazards(&*self.node, pod, pod_netns, &self.view).await;
                hazards_due = Instant::now() + repairing::HAZARD_INTERVAL;
            }
            // Every arm is cancel-safe.
            tokio::select! {
                // With `Wait` the outer loop sees the closed channel and ends.
                changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
                () = repairing::disturbed(&mut watch, quiet_until) => {
                    quiet_until = Instant::now() + repairing::MEND_PAUSE;
                    // Routing that this cannot repair is proved at once, and repaired by all steps.
                    if repairing::mend(&*self.node, pod, pod_netns).await {
                        continue;
                    }
                }
                // Proved at once: with another proxy every fact about it is another.
                _ = self.node_changes.changed() => {}
                () = sleep_until(due) => {}
            }
            due = Instant::now() + self.timing.proof_interval;
            let proof = self.look_again(pod, pod_netns).await;
            if !proof.holds() {
                repairing::count(pod, &proof);
                self.assess(pod, &proof).await?;
                return Err(StepError::Unproved { checks: proof.checks() });
            }
            self.view.enrolled(pod_netns, proof.checks());
            self.correct_annotation(pod).await?;
        }
    }

    /// Writes the annotation again when it no longer says what was written: peers go by it.
    async fn correct_annotation(&mut self, pod: &LocalPod) -> Result<(), StepError> {
        // Not marked as seen: another change in this goal must still wake the loop.
        let seen = self.goal.borrow().annotated;
        if self.announcement == Announcement::Written(Redirection::Enabled) && seen != Some(Redirection::Enabled) {
            // Only when two proofs in a row have met it: the cluster tells of the agent's own write later than it is
            // made.
            if std::mem::replace(&mut self.annotation_missed, true) {
                self.node.annotate(pod, Some(Redirection::Enabled)).await?;
                metrics::annotation_corrected();
                let found = seen.map_or("not set", Redirection::as_str);
                tracing::warn!(
                    pod = pod.key.path(),
                    found,
                    "another program changed the redirection annotation of an enrolled pod; setting it again"
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
    async fn look_again(&self, pod: &LocalPod, pod_netns: &Arc<PodNetns>) -> Proof {
        let now = Instant::now();
        let oldest = now.checked_sub(self.timing.proof_interval / 2).unwrap_or(now);
        let proof = prove(&*self.node, pod, pod_netns, oldest).await;
        // A survey from before the pod's last repair would find the fault that was repaired.
        if proof.holds() { proof } else { prove(&*self.node, pod, pod_netns, Instant::now()).await }
    }

    async fn enter(&mut self, pod: &LocalPod) -> Result<Enrolled, StepError> {
        if self.failures == 0 && !self.announcement.may_be_enabled() {
            self.view.state(PodState::Enrolling, "");
        }
        // Anew at every attempt: a pod whose sandbox was made again has another namespace.
        let pod_netns = self.node.locate(pod).await?;
        let pod_netns = self.recognise(pod_netns).await?;
        self.steered.unexplored = false;
        // Looked at before anything is done: a pod that an earlier agent enrolled is proved and left alone.
        let proof = prove(&*self.node, pod, &pod_netns, Instant::now()).await;
        match proof.verdict() {
            Verdict::Holds => return self.annotate_enrolled(Proved::from(pod_netns, proof)?, pod).await,
            // Nothing is known to be wrong with a pod that was enrolled: it is read again, and left alone.
            Verdict::Unverified if self.announcement.may_be_enabled() => {
                return Err(StepError::Unproved { checks: proof.checks() });
            }
            Verdict::Unverified | Verdict::Unserved | Verdict::Blocked | Verdict::Open => {}
        }
        let steered = Located(pod_netns).steer(&*self.node, pod).await?;
        let proved = steered.announce(&*self.node, pod).await?.prove(&*self.node, pod).await?;
        self.annotate_enrolled(proved, pod).await
    }

    async fn annotate_enrolled(&mut self, proved: Proved, pod: &LocalPod) -> Result<Enrolled, StepError> {
        match self.announcement {
            Announcement::Written(Redirection::Enabled) => Ok(proved.already_annotated()),
            Announcement::None | Announcement::Unknown | Announcement::Written(Redirection::Pending) => {
                // Before the write: when it fails or the future is dropped, the write may have been made all the same.
                self.announcement = Announcement::Unknown;
                let enrolled = proved.annotate_enrolled(&*self.node, pod).await?;
                self.announcement = Announcement::Written(Redirection::Enabled);
                Ok(enrolled)
            }
        }
    }

    /// Keeps the known namespace, or moves to another: a pod that was sandboxed anew has one, and whatever is in the
    /// old one steers nothing.
    async fn recognise(&mut self, found: Arc<PodNetns>) -> Result<Arc<PodNetns>, StepError> {
        match self.steered.pod_netns.take() {
            Some(known) if known.cookie == found.cookie && known.interface == found.interface => {
                self.steered.pod_netns = Some(known.clone());
                return Ok(known);
            }
            Some(earlier) if earlier.cookie != found.cookie => {
                // Kept when it fails, so that the next attempt continues there: nobody else knows that namespace.
                undo(&*self.node, &earlier).await.inspect_err(|_| self.steered.pod_netns = Some(earlier))?;
            }
            Some(_) | None => {}
        }
        self.steered.pod_netns = Some(found.clone());
        Ok(found)
    }

    /// Draws conclusions from a proof that may not hold. The annotation stays as it was: a peer that hears that it left
    /// the mesh sends plaintext, which only the user may ask for. While the proof does not hold, an alarm says so.
    async fn assess(&mut self, pod: &LocalPod, proof: &Proof) -> Result<(), StepError> {
        self.view.set_checks(proof.checks());
        let verdict = proof.verdict();
        proof.unread().for_each(|fact| metrics::unreadable(fact.name()));
        if verdict == Verdict::Unserved && self.announcement == Announcement::None {
            self.announcement = Announcement::Unknown;
            // Never `enabled` without a proof. `pending` tells the cluster that the pod is steered and its traffic
            // blocked.
            self.node.annotate(pod, Some(Redirection::Pending)).await?;
            self.announcement = Announcement::Written(Redirection::Pending);
        }
        // A pod that was never announced is on its way in: its steps fail and are tried again, which is no alarm.
        let verdict = if self.announcement.may_be_enabled() { verdict } else { Verdict::Holds };
        if std::mem::replace(&mut self.verdict, verdict) != verdict {
            repairing::alarm(pod, verdict, &proof.complaint());
        }
        Ok(())
    }

    async fn withdraw(
        &mut self,
        pod: &LocalPod,
        reason: &str,
        annotated: Option<Redirection>,
    ) -> Result<(), StepError> {
        if self.announcement == Announcement::None {
            // Somebody else announces it.
            self.announcement = annotated.into();
        }
        // Nothing is written for a pod that was never announced: each write is a request to the API server.
        if self.announcement != Announcement::None {
            // First of all steps out: peers have to stop dialling HBONE before the listeners go.
            self.node.annotate(pod, None).await?;
            if self.announcement.may_be_enabled() {
                metrics::withdrawn();
                tracing::info!(
                    pod = pod.key.path(),
                    reason,
                    "pod is leaving the mesh; it is no longer announced as enrolled"
                );
            }
            self.announcement = Announcement::None;
        }
        self.verdict = Verdict::Holds;
        Ok(())
    }

    async fn leave(&mut self, pod: &LocalPod, reason: &str, annotated: Option<Redirection>) -> Result<Next, StepError> {
        self.withdraw(pod, reason, annotated).await?;
        let Some(pod_netns) = self.explore(pod).await? else {
            return self.outside(pod, reason).await;
        };
        self.view.state(PodState::Leaving, reason);
        let since = *self.leaving_since.get_or_insert_with(Instant::now);
        // The annotation is away already: peers have begun to hear that they are to dial the pod without HBONE.
        let draining = Withdrawn(pod_netns).stop_capturing(&*self.node, pod, since, self.timing.unenrol_grace).await?;
        let (drained, how) = tokio::select! {
            // A goal that changes back to "in" captures again at once: nothing was removed yet.
            drained = draining.drain(&*self.node) => drained,
            changed = self.goal.changed() => return Ok(if changed.is_ok() { Next::Again } else { Next::Wait }),
        };
        if how == Drain::Expired {
            metrics::drain_expired();
            tracing::info!(pod = %pod.key.path(), "grace period of a leaving pod expired; closing its remaining proxied connections");
        }
        self.dismissal = drained.remove(&*self.node, pod).await?;
        self.leaving_since = None;
        self.steered.pod_netns = None;
        metrics::left();
        self.outside(pod, reason).await
    }

    /// Reports the pod as outside the mesh, once every proxy has confirmed that it no longer serves it.
    async fn outside(&mut self, pod: &LocalPod, reason: &str) -> Result<Next, StepError> {
        if self.dismissal == Dismissal::Unconfirmed {
            self.node.dismiss(pod).await?;
            self.dismissal = Dismissal::Confirmed;
        }
        self.view.outside(reason);
        Ok(Next::Wait)
    }

    /// Finds the namespace of a pod that is not wanted in the mesh, if programs, rules or entries of the mesh may be in it.
    async fn explore(&mut self, pod: &LocalPod) -> Result<Option<Arc<PodNetns>>, StepError> {
        if self.steered.unexplored && self.steered.pod_netns.is_none() {
            let pod_netns = match self.node.locate(pod).await {
                Ok(pod_netns) => pod_netns,
                // It was steered: that nothing is left is not known before its namespace was looked into.
                Err(error) if self.steered.was_announced => return Err(error),
                // Not running yet: looked into when its addresses are known.
                Err(_) => return Ok(None),
            };
            // A namespace without an entry was never steered, or is clean: `undo` removes the entry last.
            self.steered.pod_netns = self.node.has_entry(&pod_netns).await?.then_some(pod_netns);
        }
        self.steered.unexplored = false;
        Ok(self.steered.pod_netns.clone())
    }

    async fn finish(
        &mut self,
        pod: &LocalPod,
        reason: &str,
        annotated: Option<Redirection>,
    ) -> Result<Next, StepError> {
        self.withdraw(pod, reason, annotated).await?;
        match self.steered.pod_netns.clone() {
            Some(pod_netns) => {
                let least = usize::from(self.steered.taken_over);
                Withdrawn(pod_netns).skip_draining().remove_once_dismissed(&*self.node, pod, least).await?;
                metrics::left();
                self.steered.pod_netns = None;
            }
            // Maybe known to a proxy from a snapshot.
            None => {
                self.node.dismiss(pod).await?;
            }
        }
        self.view.outside(reason);
        Ok(Next::Wait)
    }

    async fn remove_deleted(&mut self, pod: &LocalPod) -> Result<Next, StepError> {
        self.view.state(PodState::Leaving, "the pod was deleted");
        // What is in kernel and proxy does not wait for a cluster that cannot be written to.
        let removed = self.remove_now(pod).await;
        let annotated = self.node.forget_annotation(pod).await;
        match removed.and(annotated) {
            // Tried again with growing pauses.
            Err(error) if self.failures < REMOVAL_TRIES => Err(error),
            Err(error) => {
                tracing::error!(pod = %pod.key.path(), code = error.code(), %error, "failed to remove everything of a deleted pod; the next agent removes the rest");
                Ok(Next::End)
            }
            Ok(()) => Ok(Next::End),
        }
    }

    async fn remove_now(&mut self, pod: &LocalPod) -> Result<(), StepError> {
        match self.steered.pod_netns.clone() {
            Some(pod_netns) => {
                self.dismissal = Withdrawn(pod_netns).skip_draining().remove(&*self.node, pod).await?;
                metrics::left();
                self.steered.pod_netns = None;
                self.announcement = Announcement::None;
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
