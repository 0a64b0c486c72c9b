//! Turns the cluster's pods and namespaces into goals, one per pod of this node. Reaching them is `enrol`'s business.

mod local_pod;
mod sandboxes;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use contract::admin::agent::PodState;
use graph::enrolment::{Enablement, Enrolment};
use kube_types::core::{Namespace, Pod};
use kube_types::{Event, ObjectRef, Resource};
use runtime::Backoff;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use zds::PodId;

use self::local_pod::local_pod;
use crate::cni::Sandbox;
use crate::enrol::{Actor, Announcement, Goal, Node, Redirection, Timing, Wanted};
use crate::pod::PodNetns;
use crate::pod_settings::PodSettings;
use crate::report::{Reports, View};
use crate::{metrics, probes, unsupported};

/// Everything the controller hands to the tasks it starts.
pub struct TaskContext<N> {
    pub node: Arc<N>,
    pub reports: Reports,
    pub timing: Timing,
    /// Ticks when proxies come or go.
    pub node_changes: watch::Receiver<u64>,
}

/// The task of one pod.
struct PodTask {
    uid: PodId,
    goal: watch::Sender<Goal>,
    view: View,
    task: JoinHandle<()>,
}

/// The task of a pod that is gone; it tries on as long as somebody holds the goal.
struct EndingTask {
    _goal: watch::Sender<Goal>,
    task: JoinHandle<()>,
}

/// Pods of one node and where they are wanted.
pub struct Controller<N> {
    node_name: String,
    /// Of pods that choose nothing else.
    settings: PodSettings,
    enablement: Enablement,
    namespaces: HashMap<String, Arc<Namespace>>,
    pods: BTreeMap<ObjectRef, Arc<Pod>>,
    /// Told by CNI plugins, of pods that are wanted in the mesh.
    sandboxes: HashMap<PodId, Arc<Sandbox>>,
    tasks: BTreeMap<ObjectRef, PodTask>,
    /// Tasks of pods that are gone and not yet removed: a pod of the same name waits for them.
    ending: HashMap<ObjectRef, EndingTask>,
    /// `None` until the first goals are set: before that, events are only noted.
    context: Option<TaskContext<N>>,
}

impl<N: Node> Controller<N> {
    /// `settings`: those of pods that choose nothing else.
    pub fn new(node_name: &str, enablement: Enablement, settings: PodSettings) -> Self {
        Self {
            node_name: node_name.to_owned(),
            settings,
            enablement,
            namespaces: HashMap::new(),
            pods: BTreeMap::new(),
            sandboxes: HashMap::new(),
            tasks: BTreeMap::new(),
            ending: HashMap::new(),
            context: None,
        }
    }

    /// Notes one event and, once [`Controller::start`]ed, changes the goals it changes.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Applied { resource: Resource::Pod(pod), .. } => self.pod_applied(pod),
            Event::Applied { resource: Resource::Namespace(namespace), .. } => self.namespace_applied(namespace),
            Event::Removed { key, .. } => self.removed(&key),
            Event::Applied { .. } | Event::InSync { .. } | Event::Problem(_) | Event::Solved { .. } => {}
        }
    }

    /// The pods of this node and where they are wanted, whether or not their tasks have begun.
    pub fn goals(&self) -> impl Iterator<Item = Goal> {
        self.pods.values().filter_map(|pod| {
            let (wanted, annotated) = (self.wanted(pod), Redirection::of(pod));
            Some(Goal { pod: local_pod(pod, None, PodSettings::of(pod, self.settings, None))?, wanted, annotated })
        })
    }

    /// Starts a task for every pod noted so far. `steered`: where an earlier agent enrolled pods, by uid.
    pub fn start(&mut self, context: TaskContext<N>, steered: &HashMap<PodId, Arc<PodNetns>>) {
        self.context = Some(context);
        // Only now, with every pod and namespace known: a pod without its namespace would not be selected, and its task
        // would take it out of the mesh.
        let all: Vec<ObjectRef> = self.pods.keys().cloned().collect();
        for key in all {
            self.set_goal(&key, steered);
        }
    }

    /// Sets no more goals, waits for the step that each task is at, and returns the pods as they are known. No task runs
    /// any more after it.
    pub async fn stop(mut self) -> Vec<Goal> {
        let goals = self.goals().collect();
        let running = std::mem::take(&mut self.tasks).into_values().map(|pod_task| pod_task.task);
        let ending = std::mem::take(&mut self.ending).into_values().map(|ending| ending.task);
        end(running.chain(ending).collect()).await;
        goals
    }

    fn pod_applied(&mut self, pod: Arc<Pod>) {
        let key = ObjectRef::new(kube_types::Kind::Pod, pod.metadata.namespace.clone(), pod.metadata.name.clone());
        if pod.spec.node_name.as_deref() != Some(&self.node_name) {
            // A pod never moves, but one of the same name may have been on this node before.
            return self.removed(&key);
        }
        // The map owns the pod; its task gets the part that enrolment depends on.
        let known = self.pods.insert(key.clone(), pod).is_some();
        metrics::reconcile(if known { "update" } else { "add" });
        self.set_goal(&key, &HashMap::new());
    }

    fn namespace_applied(&mut self, namespace: Arc<Namespace>) {
        let name = namespace.metadata.name.clone();
        self.namespaces.insert(name.clone(), namespace);
        self.set_goals_of_namespace(&name);
    }

    fn removed(&mut self, key: &ObjectRef) {
        match key.kind {
            // Pods of other nodes come here, too, and were never kept.
            kube_types::Kind::Pod if self.pods.remove(key).is_some() => {
                metrics::reconcile("delete");
                self.end_task(key);
            }
            kube_types::Kind::Namespace => {
                self.namespaces.remove(&key.name);
                // A namespace that is gone selects nothing; its pods follow one by one.
                self.set_goals_of_namespace(&key.name);
            }
            _ => {}
        }
    }

    fn set_goals_of_namespace(&mut self, namespace: &str) {
        let keys: Vec<ObjectRef> = self.pods.keys().filter(|key| key.namespace == namespace).cloned().collect();
        for key in keys {
            self.set_goal(&key, &HashMap::new());
        }
    }

    /// Sets the goal of one pod, starting its task if it has none.
    fn set_goal(&mut self, key: &ObjectRef, steered: &HashMap<PodId, Arc<PodNetns>>) {
        // A clone of the pointer, since the tasks below are changed while the pod is read.
        let Some(pod) = self.pods.get(key).filter(|_| self.context.is_some()).cloned() else { return };
        let wanted = self.wanted(&pod);
        let sandbox = self.sandbox_of(&pod, &wanted);
        let settings = self.settings_of(key, &pod);
        let Some(local_pod) = local_pod(&pod, sandbox.as_ref(), settings) else { return };
        // A pod of the same name (StatefulSets) is another pod: the earlier one's task takes it out, and this one's
        // begins behind it.
        if self.tasks.get(key).is_some_and(|pod_task| pod_task.uid != local_pod.uid) {
            self.end_task(key);
        }
        let goal = Goal { wanted, pod: local_pod, annotated: Redirection::of(&pod) };
        let selected = self.selection(&pod).is_selected();
        // Who is outside the mesh asks for nothing.
        let mut notes = Vec::new();
        if selected {
            notes.extend(unsupported::annotations(&pod).iter().map(ToString::to_string));
            notes.extend(settings.notes(&pod, self.settings));
            notes.extend(probes::declared(&pod, &goal.pod.ips).notes);
        }
        // The goal moves into the task.
        let described = goal.pod.clone();
        match self.tasks.get(key) {
            Some(pod_task) => {
                pod_task.view.described(&goal.pod, selected);
                // Most changes of a pod (conditions, states of its containers) concern nothing that enrolment depends
                // on. They must not wake the task, which would prove the pod each time.
                pod_task.goal.send_if_modified(|current| {
                    let changed = current.pod != goal.pod || current.wanted != goal.wanted || goal.is_misannounced();
                    // Stored also when nobody is woken: `correct_annotation` reads the annotation in it.
                    *current = goal;
                    changed
                });
            }
            None => self.start_task(key, goal, selected, steered),
        }
        if let Some(pod_task) = self.tasks.get(key) {
            pod_task.view.noted(&described, notes);
        }
    }

    fn start_task(&mut self, key: &ObjectRef, goal: Goal, selected: bool, steered: &HashMap<PodId, Arc<PodNetns>>) {
        let Some(context) = &self.context else { return };
        let (uid, annotated) = (goal.pod.uid.clone(), goal.annotated);
        let view = context.reports.view(&goal.pod);
        view.described(&goal.pod, selected);
        // By uid: a namespace of an earlier pod of the same name is not this pod's.
        let steered = steered.get(&uid).cloned();
        let (goal, goals) = watch::channel(goal);
        let (node, node_changes, timing, reported) =
            (context.node.clone(), context.node_changes.clone(), context.timing, view.clone());
        // A closure, because a task that panicked is started again with a new actor.
        let actor = move |announcement, steered| {
            Actor::new(
                node.clone(),
                goals.clone(),
                node_changes.clone(),
                reported.clone(),
                timing,
                announcement,
                steered,
            )
        };
        // One at most: `end_task` replaces the entry, and each task waits for the one before it.
        let earlier = self.ending.remove(key);
        let reported = view.clone();
        let task = tokio::spawn(async move {
            // The earlier pod's annotation is taken back before this one's is written.
            if let Some(EndingTask { _goal, task }) = earlier {
                let _: Result<(), tokio::task::JoinError> = task.await;
            }
            keep_running(actor, &reported, timing, (annotated.into(), steered)).await;
        });
        self.tasks.insert(key.clone(), PodTask { uid, goal, view, task });
    }

    fn end_task(&mut self, key: &ObjectRef) {
        self.ending.retain(|_, ending| !ending.task.is_finished());
        if let Some(PodTask { uid, goal, task, .. }) = self.tasks.remove(key) {
            // It keeps the namespace open, which would outlive its pod.
            self.sandboxes.remove(&uid);
            // Not aborted: the task is the one that knows what the pod has in the kernel.
            goal.send_modify(|goal| goal.wanted = Wanted::Gone);
            self.ending.insert(key.clone(), EndingTask { _goal: goal, task });
        }
    }

    fn settings_of(&self, key: &ObjectRef, pod: &Pod) -> PodSettings {
        let known = self.tasks.get(key).filter(|pod_task| pod_task.uid.as_str() == pod.metadata.uid);
        PodSettings::of(pod, self.settings, known.map(|pod_task| pod_task.goal.borrow().pod.settings))
    }

    fn selection(&self, pod: &Pod) -> Enrolment {
        self.enablement.selected(pod, self.namespaces.get(&pod.metadata.namespace).map(AsRef::as_ref))
    }

    fn wanted(&self, pod: &Pod) -> Wanted {
        // Before the labels: the phase of a pod that has ended does not change again, whatever its labels say.
        if pod.is_terminated() {
            return Wanted::Finished { reason: "the pod has finished".to_owned() };
        }
        match self.selection(pod) {
            Enrolment::Selected => Wanted::In,
            Enrolment::NotSelected { reason } => Wanted::Out { reason: reason.to_string() },
        }
    }
}

/// Runs a pod's task to its end. One that ends by a defect is said aloud, no longer counts as proved, and is started anew:
/// nobody else looks after the pod.
async fn keep_running<N: Node>(
    actor: impl Fn(Announcement, Option<Arc<PodNetns>>) -> Actor<N>,
    view: &View,
    timing: Timing,
    (mut announcement, mut steered): (Announcement, Option<Arc<PodNetns>>),
) {
    let mut backoff = Backoff::new(timing.retry_min, timing.retry_max);
    loop {
        // Ended with this future: a set aborts its tasks.
        let mut task = JoinSet::new();
        task.spawn(actor(announcement, steered.take()).run());
        // `Ok` is the regular end: the pod is gone, or the agent stops.
        let Some(Err(error)) = task.join_next().await else { return };
        metrics::task_lost();
        tracing::error!(%error, "enrolment task of a pod panicked; starting it again");
        view.failed(PodState::Failed, &format!("enrolment task panicked: {error}"), Some(Vec::new()));
        // The task may have panicked between a write and its note of it.
        announcement = Announcement::Unknown;
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Waits for all tasks together, and ends those that are still at work then: what comes next must not meet them. A call into
/// the kernel that one of them has under way, of milliseconds, still ends by itself.
async fn end(tasks: Vec<JoinHandle<()>>) {
    // Every step has a deadline of its own; a proxy's answer is the longest.
    let deadline = Instant::now() + zds::server::DEADLINE;
    for mut task in tasks {
        if timeout_at(deadline, &mut task).await.is_err() {
            tracing::warn!("enrolment task of a pod did not end in time; aborting it");
            task.abort();
            let _: Result<(), tokio::task::JoinError> = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::tests::{Fake, TIMING};
    use crate::testing::{namespace, pod};

    const SETTINGS: PodSettings = PodSettings { captures_dns: true, bypasses_inbound: false };

    struct Bench {
        controller: Controller<Fake>,
        node: Arc<Fake>,
        reports: Reports,
        _node_changes: watch::Sender<u64>,
    }

    impl Bench {
        fn start(events: impl IntoIterator<Item = Event>) -> Self {
            let (node, reports) = (Arc::new(Fake::default()), Reports::default());
            let (changed, node_changes) = watch::channel(0);
            let mut controller = Controller::new("n1", Enablement::default(), SETTINGS);
            events.into_iter().for_each(|event| controller.apply(event));
            let tasks = TaskContext { node: node.clone(), reports: reports.clone(), timing: TIMING, node_changes };
            controller.start(tasks, &HashMap::new());
            Self { controller, node, reports, _node_changes: changed }
        }

        /// Waits, in the clock of the test, for the state and reason of the only pod.
        async fn reaches(&self, uid: &str, state: PodState, reason: &str) {
            let reached = || {
                let pods = self.reports.node("n1").pods;
                pods.len() == 1 && pods[0].uid == uid && pods[0].state == state && pods[0].reason.contains(reason)
            };
            crate::enrol::tests::until(reached).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_follows_the_label_of_its_namespace() {
        let mut bench = Bench::start([namespace("app", false), pod("u1", |_| ())]);
        bench.reaches("u1", PodState::NotSelected, "label").await;

        bench.controller.apply(namespace("app", true));
        bench.reaches("u1", PodState::Enrolled, "").await;
        bench.controller.apply(namespace("app", false));

        bench.reaches("u1", PodState::NotSelected, "label").await;
        assert!(!bench.node.is_annotated());
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_cannot_be_enrolled_are_listed_with_the_reason() {
        let host = Bench::start([namespace("app", true), pod("u1", |pod| pod.spec.host_network = true)]);
        host.reaches("u1", PodState::NotSelected, "host network").await;
        let excluded = Bench::start([
            namespace("kube-system", true),
            pod("u1", |pod| pod.metadata.namespace = "kube-system".to_owned()),
        ]);
        excluded.reaches("u1", PodState::NotSelected, "excluded").await;
        let finished = [namespace("app", true), pod("u1", |pod| pod.status.phase = Some("Succeeded".to_owned()))];
        Bench::start(finished).reaches("u1", PodState::NotSelected, "finished").await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_annotation_that_has_no_effect_is_told_while_the_pod_is_selected() {
        let enrol_request = |pod: &mut Pod| {
            pod.metadata.annotations.insert("istio.io/reroute-virtual-interfaces".to_owned(), "tap0".to_owned());
        };
        let mut bench = Bench::start([namespace("app", true), pod("u1", enrol_request)]);
        bench.reaches("u1", PodState::Enrolled, "").await;
        let notes = bench.reports.node("n1").pods.remove(0).notes;
        assert!(notes.len() == 1 && notes[0].contains("reroute-virtual-interfaces"), "{notes:?}");

        bench.controller.apply(namespace("app", false));

        assert!(bench.reports.node("n1").pods[0].notes.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_setting_that_becomes_unreadable_stays_as_it_was() {
        let annotated = |value: &'static str| {
            pod("u1", move |pod| {
                pod.metadata.annotations.insert("ambient.istio.io/dns-capture".to_owned(), value.to_owned());
            })
        };
        let mut bench = Bench::start([namespace("app", true), annotated("false")]);
        bench.reaches("u1", PodState::Enrolled, "").await;
        let key = ObjectRef::new(kube_types::Kind::Pod, "app", "web");
        let captures_dns = |bench: &Bench| bench.controller.tasks[&key].goal.borrow().pod.settings.captures_dns;
        assert!(!captures_dns(&bench));

        bench.controller.apply(annotated("flase"));

        assert!(!captures_dns(&bench));
        let notes = bench.reports.node("n1").pods.remove(0).notes;
        assert!(notes.len() == 1 && notes[0].contains("invalid value \"flase\""), "{notes:?}");
        bench.controller.apply(pod("u1", |_| ()));
        assert!(captures_dns(&bench), "without the annotation the node's setting counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_finishes_is_taken_out() {
        let mut bench = Bench::start([namespace("app", true), pod("u1", |_| ())]);
        bench.reaches("u1", PodState::Enrolled, "").await;

        bench.controller.apply(pod("u1", |pod| pod.status.phase = Some("Failed".to_owned())));

        bench.reaches("u1", PodState::NotSelected, "finished").await;
        assert!(!bench.node.is_annotated());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_whose_task_ended_by_a_defect_does_not_count_as_proved_and_is_looked_after_again() {
        let mut bench = Bench::start([namespace("app", true), pod("u1", |_| ())]);
        bench.reaches("u1", PodState::Enrolled, "").await;

        bench.node.break_proof();
        bench.reaches("u1", PodState::Failed, "enrolment task panicked").await;
        assert!(bench.reports.node("n1").pods[0].checks.is_empty());
        bench.reaches("u1", PodState::Enrolled, "").await;

        bench.controller.apply(namespace("app", false));
        bench.reaches("u1", PodState::NotSelected, "label").await;
        assert!(bench.node.is_clean());
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_end_are_ended_within_one_deadline() {
        let begun = Instant::now();
        let held = Arc::new(());
        let stuck = || {
            let held = held.clone();
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            })
        };

        end(vec![stuck(), tokio::spawn(async {}), stuck()]).await;

        assert_eq!(Arc::strong_count(&held), 1, "a task still runs");
        assert_eq!(begun.elapsed(), zds::server::DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn pods_of_other_nodes_are_not_ours() {
        let bench = Bench::start([pod("u1", |pod| pod.spec.node_name = Some("n2".to_owned()))]);

        assert!(bench.reports.node("n1").pods.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_of_the_same_name_waits_until_the_earlier_one_is_removed() {
        let mut bench = Bench::start([namespace("app", true), pod("u1", |_| ())]);
        bench.reaches("u1", PodState::Enrolled, "").await;

        bench.controller.apply(pod("u2", |_| ()));
        bench.reaches("u2", PodState::Enrolled, "").await;

        assert!(bench.node.is_annotated());
        let log = bench.node.log();
        let forgotten = log.iter().position(|step| *step == "forget").unwrap();
        assert!(log[forgotten..].contains(&"annotate"), "{log:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_pod_is_removed_even_when_it_takes_several_tries() {
        let mut bench = Bench::start([namespace("app", true), pod("u1", |_| ())]);
        bench.reaches("u1", PodState::Enrolled, "").await;
        bench.node.fail(crate::enrol::Step::RemoveRules, 3);

        let key = ObjectRef::new(kube_types::Kind::Pod, "app", "web");
        bench.controller.apply(Event::Removed { cluster: kube_types::ClusterId::default(), key });

        crate::enrol::tests::until(|| bench.reports.node("n1").pods.is_empty()).await;
        assert!(bench.node.is_clean());
    }
}
