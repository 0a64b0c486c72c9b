//! One pod's task over a [`Fake`], with the clock of the test.

use std::sync::Arc;
use std::time::Duration;

use contract::admin::agent::PodState;
use kube_types::{Kind, ObjectRef};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zds::{PodId, WorkloadInfo};

use super::TIMING;
use super::fake::{Fake, State};
use crate::enrol::{Actor, Goal, Node as _, Redirection, Wanted};
use crate::pod::{LocalPod, PodNetns};
use crate::pod_settings::PodSettings;
use crate::report::Reports;

pub(super) struct Bench {
    pub(super) node: Arc<Fake>,
    pub(super) goal: watch::Sender<Goal>,
    pub(super) node_changes: watch::Sender<u64>,
    pub(super) reports: Reports,
    pub(super) actor: JoinHandle<()>,
}

pub(crate) fn pod() -> LocalPod {
    LocalPod {
        sandbox: None,
        probe_ports: vec![8080],
        settings: PodSettings { captures_dns: true, bypasses_inbound: false },
        key: ObjectRef::new(Kind::Pod, "default", "web"),
        uid: PodId::new("u1").unwrap(),
        cgroup_uid: "u1".to_owned(),
        info: WorkloadInfo { name: "web".into(), namespace: "default".into(), service_account: "sa".into() },
        ips: vec!["10.0.0.1".parse().unwrap()],
    }
}

pub(super) fn out() -> Wanted {
    Wanted::Out { reason: "label".to_owned() }
}

impl Bench {
    pub(super) fn start(wanted: Wanted, annotated: bool, state: State) -> Self {
        let in_mesh = annotated && wanted == Wanted::In;
        Self::start_at(Arc::new(Fake::of(State { annotated, in_mesh, ..state })), wanted, None)
    }

    /// A task of a new agent that has found the namespace in which an earlier one enrolled the pod.
    pub(super) async fn take_over(wanted: Wanted, state: State) -> Self {
        let node = Arc::new(Fake::of(state));
        let steered = node.locate(&pod()).await.unwrap();
        Self::start_at(node, wanted, Some(steered))
    }

    /// A task that starts with what is on the node, as that of a new agent does.
    fn start_at(node: Arc<Fake>, wanted: Wanted, steered: Option<Arc<PodNetns>>) -> Self {
        node.with(|state| state.in_mesh &= wanted == Wanted::In);
        let annotated = annotated(&node);
        let (goal, goals) = watch::channel(Goal { pod: pod(), wanted, annotated });
        let (changed, node_changes) = watch::channel(0);
        let reports = Reports::default();
        let view = reports.view(&pod());
        let actor = Actor::new(node.clone(), goals, node_changes, view, TIMING, annotated.into(), steered);
        Self { node, goal, node_changes: changed, reports, actor: tokio::spawn(actor.run()) }
    }

    /// Kills the task where it is and starts one of a new agent, to which no proxy has acknowledged anything.
    pub(super) async fn restart(self, wanted: Wanted) -> Self {
        self.actor.abort();
        let _: Result<(), tokio::task::JoinError> = self.actor.await;
        self.node.with(|state| {
            state.halts_before = None;
            state.acknowledged = false;
        });
        Self::start_at(self.node, wanted, None)
    }

    pub(super) fn want(&self, wanted: Wanted) {
        self.node.with(|state| state.in_mesh &= wanted == Wanted::In);
        self.goal.send(Goal { pod: pod(), wanted, annotated: annotated(&self.node) }).unwrap();
    }

    /// Delivers the cluster's event with the pod's annotation.
    pub(super) fn deliver(&self, annotated: Option<Redirection>) {
        self.goal.send_if_modified(|goal| {
            goal.annotated = annotated;
            false
        });
    }

    /// Lets the actor work, in the clock of the test, until `done`.
    pub(super) async fn until(&self, done: impl Fn(&State) -> bool) {
        until(|| self.node.with(|state| done(state))).await;
    }

    pub(super) async fn enrolled() -> Self {
        let bench = Self::start(Wanted::In, false, State::default());
        bench.until(|state| state.annotated).await;
        bench.deliver(Some(Redirection::Enabled));
        bench
    }

    pub(super) fn log(&self) -> Vec<&'static str> {
        self.node.with(|state| std::mem::take(&mut state.log))
    }

    pub(super) fn state(&self) -> PodState {
        self.reports.node("n").pods[0].state
    }

    /// Fails when the pod was announced before it was closed, or no longer announced although nobody asked for that.
    pub(super) fn assert_never_open(&self) {
        assert_eq!(self.node.with(|state| state.violation.clone()), None);
    }

    pub(super) fn assert_nothing_left(&self) {
        self.node.with(|state| {
            assert!(
                !state.annotated
                    && !state.pending
                    && state.entry.is_none()
                    && !state.rules
                    && !state.link
                    && !state.listeners
            );
            assert!(state.touched.is_empty());
        });
    }
}

/// State of the pod as the cluster knows it.
fn annotated(node: &Fake) -> Option<Redirection> {
    match node.with(|state| (state.annotated, state.pending)) {
        (true, _) => Some(Redirection::Enabled),
        (false, true) => Some(Redirection::Pending),
        (false, false) => None,
    }
}

/// Lets the clock of the test go on until `done`.
pub(crate) async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            pass(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), waiting).await.expect("the deadline passed");
}

/// Lets this much time of the test's clock pass.
pub(super) async fn pass(time: Duration) {
    let _: Result<(), tokio::time::error::Elapsed> = tokio::time::timeout(time, std::future::pending()).await;
}

/// `names` without repetitions in a row.
pub(super) fn steps(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.dedup();
    names
}
