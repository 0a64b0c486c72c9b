//! A node that remembers what was done to its only pod, fails where it is told to, and stands still where an agent dies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::sync::Arc;

use parking_lot::Mutex;
use runtime::sys::Netns;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::enrol::{Capture, Fact, Node, Proof, Reading, Redirection, Step, StepError, Watch};
use crate::pod::{LocalPod, PodNetns};

#[derive(Default)]
pub(super) struct State {
    /// Remaining failures of each step.
    pub(super) faults: HashMap<Step, u32>,
    pub(super) log: Vec<&'static str>,
    /// Steps begun so far.
    pub(super) steps: usize,
    /// The step, counted from 0, that never begins.
    pub(super) halts_before: Option<usize>,
    pub(super) entry: Option<Capture>,
    pub(super) rules: bool,
    pub(super) link: bool,
    pub(super) listeners: bool,
    pub(super) acknowledged: bool,
    pub(super) annotated: bool,
    pub(super) pending: bool,
    pub(super) proxied: usize,
    /// The proxy has not connected to this agent yet, and serves the pod.
    pub(super) proxy_is_late: bool,
    /// The proxy's listeners are opened before the kernel knows the pod.
    pub(super) listens_unseen: bool,
    /// Places where something of ours is, by cookie.
    pub(super) touched: BTreeSet<u64>,
    pub(super) cookie: u64,
    /// Proofs do not end.
    pub(super) proof_hangs: bool,
    /// The next proof ends its task by a defect.
    pub(super) proof_breaks: bool,
    /// Proofs with links of an earlier moment miss the pod's.
    pub(super) old_links_lack_ours: bool,
    /// Readings of these facts, whatever the state is. See [`State::disturb`].
    pub(super) injected: BTreeMap<Fact, Injected>,
    pub(super) hazards: Vec<String>,
    /// The pod was announced as enrolled, and nobody asked for it to leave.
    pub(super) in_mesh: bool,
    /// Set when a pod that was in the mesh was no longer announced, or one was announced before it was closed.
    pub(super) violation: Option<String>,
}

/// A fact that is not as it should be.
pub(super) struct Injected {
    pub(super) reading: Reading,
    /// The step that makes it hold again.
    pub(super) repaired_by: Option<Step>,
}

impl State {
    /// The proxy ends and no other connects.
    pub(super) fn lose_proxy(&mut self) {
        self.listeners = false;
        self.acknowledged = false;
        self.faults.insert(Step::Announce, u32::MAX);
    }

    fn fact(&self, fact: Fact, since: Instant) -> Reading {
        if let Some(injected) = self.injected.get(&fact) {
            return injected.reading.clone();
        }
        let holds = match fact {
            Fact::PodEntry => self.entry == Some(Capture::On),
            Fact::SkLookup => self.link && !(self.old_links_lack_ours && since < Instant::now()),
            Fact::Rules | Fact::Outbound => self.rules,
            Fact::Listeners => self.listeners,
            Fact::Acknowledged => self.acknowledged,
            Fact::Connect4
            | Fact::Connect6
            | Fact::Sendmsg4
            | Fact::Sendmsg6
            | Fact::Recvmsg4
            | Fact::Recvmsg6
            | Fact::Getpeername4
            | Fact::Getpeername6
            | Fact::Bind4
            | Fact::Bind6
            | Fact::Egress
            | Fact::Sockops
            | Fact::Probes
            | Fact::NetnsCookie
            | Fact::Settings
            | Fact::Address
            | Fact::Inbound
            | Fact::ProxyTag
            | Fact::ProxyCgroup => true,
        };
        if holds { Reading::Holds(String::new()) } else { Reading::Fails("missing".to_owned()) }
    }

    fn repair(&mut self, step: Step) {
        self.injected.retain(|_, injected| injected.repaired_by != Some(step));
    }

    /// A pod leaves the mesh by its user's wish only.
    fn check_announcement(&mut self, after: &str) {
        if self.in_mesh && !self.annotated && self.violation.is_none() {
            self.violation = Some(format!("no longer announced after {after}"));
        }
    }
}

pub(crate) struct Fake {
    state: Mutex<State>,
    disturbance: Arc<Notify>,
}

/// Ticks with [`Fake::disturb`].
pub(crate) struct FakeWatch(Arc<Notify>);

impl Watch for FakeWatch {
    async fn changed(&mut self) {
        self.0.notified().await;
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::of(State::default())
    }
}

impl Fake {
    pub(super) fn of(state: State) -> Self {
        Self { state: Mutex::new(State { cookie: 7, ..state }), disturbance: Arc::default() }
    }

    pub(crate) fn is_annotated(&self) -> bool {
        self.with(|state| state.annotated)
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.with(|state| state.touched.is_empty() && !state.annotated && !state.pending && !state.rules && !state.link)
    }

    pub(crate) fn log(&self) -> Vec<&'static str> {
        self.with(|state| state.log.clone())
    }

    pub(crate) fn fail(&self, step: Step, times: u32) {
        self.with(|state| state.faults.insert(step, times));
    }

    /// The next proof ends the task that asks for it.
    pub(crate) fn break_proof(&self) {
        self.with(|state| state.proof_breaks = true);
    }

    /// Notifies of a change to the pod's routing.
    pub(super) fn disturb(&self) {
        self.disturbance.notify_one();
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    async fn step<T>(&self, step: Step, name: &'static str, act: impl FnOnce(&mut State) -> T) -> Result<T, StepError> {
        if self.with(|state| state.halts_before == Some(state.steps)) {
            pending::<()>().await;
        }
        self.with(|state| {
            state.steps += 1;
            state.log.push(name);
            if let Some(left) = state.faults.get_mut(&step).filter(|left| **left > 0) {
                *left -= 1;
                return Err(StepError::at(step)("injected"));
            }
            let done = act(state);
            state.repair(step);
            state.check_announcement(name);
            Ok(done)
        })
    }
}

impl Node for Fake {
    type Watch = FakeWatch;

    fn watch(&self, _: &Arc<PodNetns>) -> Result<FakeWatch, StepError> {
        Ok(FakeWatch(self.disturbance.clone()))
    }
    async fn mend(&self, _: &LocalPod, _: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        let mended = |state: &mut State| {
            let had = std::mem::replace(&mut state.rules, true);
            if had { Vec::new() } else { vec!["rule".to_owned()] }
        };
        self.step(Step::Mend, "mend", mended).await
    }
    async fn locate(&self, _: &LocalPod) -> Result<Arc<PodNetns>, StepError> {
        let cookie = self.step(Step::Locate, "locate", |state| state.cookie).await?;
        let mut pod_netns = PodNetns::new(Netns::current().unwrap(), 2).unwrap();
        pod_netns.cookie = cookie;
        Ok(Arc::new(pod_netns))
    }
    async fn tag(&self) -> Result<(), StepError> {
        self.step(Step::Tag, "tag", |_| ()).await
    }
    async fn put_entry(&self, _: &LocalPod, pod_netns: &Arc<PodNetns>, capture: Capture) -> Result<(), StepError> {
        let name = match capture {
            Capture::Unchanged => "entry",
            Capture::On => "capture",
            Capture::Off => "release",
        };
        self.step(Step::Entry, name, |state| {
            state.touched.insert(pod_netns.cookie);
            state.entry = Some(match capture {
                Capture::Unchanged => state.entry.unwrap_or(Capture::Off),
                Capture::On | Capture::Off => capture,
            });
        })
        .await
    }
    async fn put_rules(&self, _: &LocalPod, _: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::Rules, "rules", |state| state.rules = true).await
    }
    async fn attach(&self, _: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::Link, "link", |state| state.link = true).await
    }
    async fn announce(&self, _: &LocalPod, _: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::Announce, "announce", |state| {
            state.acknowledged = true;
            state.listeners |= !state.listens_unseen;
        })
        .await
    }
    async fn catch_up(&self) -> Result<(), StepError> {
        self.step(Step::CatchUp, "catch_up", |state| state.listeners = state.acknowledged).await
    }
    async fn proof(&self, _: &LocalPod, _: &Arc<PodNetns>, since: Instant) -> Proof {
        if self.with(|state| state.proof_hangs) {
            pending::<()>().await;
        }
        assert!(!self.with(|state| std::mem::take(&mut state.proof_breaks)), "injected");
        self.with(|state| {
            let mut proof = Proof::default();
            Fact::ALL.into_iter().for_each(|fact| proof.push(fact, state.fact(fact, since)));
            proof
        })
    }
    async fn hazards(&self, _: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        Ok(self.with(|state| state.hazards.clone()))
    }
    async fn annotate(&self, _: &LocalPod, redirection: Option<Redirection>) -> Result<(), StepError> {
        let name = match redirection {
            Some(Redirection::Enabled) => "annotate",
            Some(Redirection::Pending) => "pending",
            None => "withdraw",
        };
        self.step(Step::Annotate, name, |state| {
            state.annotated = redirection == Some(Redirection::Enabled);
            state.pending = redirection == Some(Redirection::Pending);
            state.in_mesh |= state.annotated;
            let closed = state.entry == Some(Capture::On) && state.rules && state.link;
            if state.annotated && !closed && state.violation.is_none() {
                state.violation = Some(format!("open after {name}"));
            }
        })
        .await
    }
    async fn forget_annotation(&self, _: &LocalPod) -> Result<(), StepError> {
        self.step(Step::Annotate, "forget", |state| {
            state.annotated = false;
            state.pending = false;
            state.in_mesh = false;
        })
        .await
    }
    async fn proxied(&self, _: &Arc<PodNetns>) -> Result<usize, StepError> {
        self.with(|state| state.log.retain(|name| *name != "proxied"));
        self.step(Step::Drain, "proxied", |state| state.proxied).await
    }
    async fn dismiss(&self, _: &LocalPod) -> Result<usize, StepError> {
        self.step(Step::Dismiss, "dismiss", |state| {
            if state.proxy_is_late {
                return 0;
            }
            state.acknowledged = false;
            state.listeners = false;
            1
        })
        .await
    }
    async fn detach(&self, _: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::Unlink, "unlink", |state| state.link = false).await
    }
    async fn remove_rules(&self, _: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::RemoveRules, "remove_rules", |state| state.rules = false).await
    }
    async fn remove_entry(&self, pod_netns: &Arc<PodNetns>) -> Result<(), StepError> {
        self.step(Step::RemoveEntry, "remove_entry", |state| {
            state.entry = None;
            state.touched.remove(&pod_netns.cookie);
        })
        .await
    }
    async fn leftovers(&self, pod_netns: &Arc<PodNetns>) -> Result<Vec<String>, StepError> {
        self.with(|state| Ok(state.touched.get(&pod_netns.cookie).map(|_| "entry".to_owned()).into_iter().collect()))
    }
    async fn has_entry(&self, pod_netns: &Arc<PodNetns>) -> Result<bool, StepError> {
        self.with(|state| Ok(state.entry.is_some() && state.cookie == pod_netns.cookie))
    }
}
