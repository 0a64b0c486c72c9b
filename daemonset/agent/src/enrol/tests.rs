//! The order of enrolment and of leaving against a node that can fail at any step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use kube_api::Kind;
use model::report::PodState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::report::Reports;

const GRACE: Duration = Duration::from_secs(10);
pub(crate) const TIMING: Timing = Timing {
    unenrol_grace: GRACE,
    proof_interval: Duration::from_secs(3),
    retry_min: Duration::from_millis(25),
    retry_max: Duration::from_secs(2),
};

/// Every step that can fail on the way in, in order.
const ENTRY_STEPS: [Step; 7] =
    [Step::Locate, Step::Tag, Step::Entry, Step::Rules, Step::Link, Step::Announce, Step::Annotate];
/// Every step that can fail on the way out, in order.
const EXIT_STEPS: [Step; 6] =
    [Step::Annotate, Step::Entry, Step::Drain, Step::Unlink, Step::RemoveRules, Step::RemoveEntry];

#[derive(Default)]
struct State {
    /// Remaining failures of each step.
    faults: HashMap<Step, u32>,
    log: Vec<&'static str>,
    entry: Option<Capture>,
    rules: bool,
    link: bool,
    listeners: bool,
    acknowledged: bool,
    annotated: bool,
    pending: bool,
    proxied: usize,
    /// The proxy's listeners are opened before the kernel knows the pod.
    listens_unseen: bool,
    /// Places where something of ours is, by cookie.
    touched: BTreeSet<u64>,
    cookie: u64,
    /// Set when the pod was announced as enrolled without being closed.
    violation: Option<String>,
}

impl State {
    /// The proxy ends and no other connects.
    fn lose_proxy(&mut self) {
        self.listeners = false;
        self.acknowledged = false;
        self.faults.insert(Step::Announce, u32::MAX);
    }
}

/// A node that remembers what was done to its only pod.
pub(crate) struct Fake(Mutex<State>);

impl Default for Fake {
    fn default() -> Self {
        Self(Mutex::new(State { cookie: 7, ..State::default() }))
    }
}

impl Fake {
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

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn step<T>(&self, step: Step, name: &'static str, act: impl FnOnce(&mut State) -> T) -> Result<T, StepError> {
        self.with(|state| {
            state.log.push(name);
            if let Some(left) = state.faults.get_mut(&step).filter(|left| **left > 0) {
                *left -= 1;
                return Err(StepError::at(step)("injected"));
            }
            let done = act(state);
            let closed = state.entry == Some(Capture::On) && state.rules && state.link;
            if state.annotated && !closed && state.violation.is_none() {
                state.violation = Some(format!("open after {name}"));
            }
            Ok(done)
        })
    }
}

impl Node for Fake {
    async fn locate(&self, _: &PodSpec) -> Result<Arc<Place>, StepError> {
        let cookie = self.step(Step::Locate, "locate", |state| state.cookie)?;
        let mut place = Place::new(Netns::current().unwrap(), 2).unwrap();
        place.cookie = cookie;
        Ok(Arc::new(place))
    }
    async fn tag(&self) -> Result<(), StepError> {
        self.step(Step::Tag, "tag", |_| ())
    }
    async fn put_entry(&self, _: &PodSpec, place: &Arc<Place>, capture: Capture) -> Result<(), StepError> {
        let name = match capture {
            Capture::Unchanged => "entry",
            Capture::On => "capture",
            Capture::Off => "release",
        };
        self.step(Step::Entry, name, |state| {
            state.touched.insert(place.cookie);
            state.entry = Some(match capture {
                Capture::Unchanged => state.entry.unwrap_or(Capture::Off),
                Capture::On | Capture::Off => capture,
            });
        })
    }
    async fn put_rules(&self, _: &PodSpec, _: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::Rules, "rules", |state| state.rules = true)
    }
    async fn attach(&self, _: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::Link, "link", |state| state.link = true)
    }
    async fn announce(&self, _: &PodSpec, _: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::Announce, "announce", |state| {
            state.acknowledged = true;
            state.listeners |= !state.listens_unseen;
        })
    }
    async fn catch_up(&self) -> Result<(), StepError> {
        self.step(Step::CatchUp, "catch_up", |state| state.listeners = state.acknowledged)
    }
    async fn proof(&self, _: &PodSpec, _: &Arc<Place>) -> Proof {
        self.with(|state| {
            let fact = |ok: bool| if ok { Ok(String::new()) } else { Err("missing".to_owned()) };
            let mut proof = Proof::default();
            proof.push(Side::Kernel, "entry", fact(state.entry == Some(Capture::On)));
            proof.push(Side::Kernel, "rules", fact(state.rules));
            proof.push(Side::Kernel, "link", fact(state.link));
            proof.push(Side::Proxy, "listeners", fact(state.listeners));
            proof.push(Side::Proxy, "acknowledged", fact(state.acknowledged));
            proof
        })
    }
    async fn annotate(&self, _: &PodSpec, redirection: Option<Redirection>) -> Result<(), StepError> {
        let name = match redirection {
            Some(Redirection::Enabled) => "annotate",
            Some(Redirection::Pending) => "pending",
            None => "withdraw",
        };
        self.step(Step::Annotate, name, |state| {
            state.annotated = redirection == Some(Redirection::Enabled);
            state.pending = redirection == Some(Redirection::Pending);
        })
    }
    async fn forget_annotation(&self, _: &PodSpec) -> Result<(), StepError> {
        self.step(Step::Annotate, "forget", |state| {
            state.annotated = false;
            state.pending = false;
        })
    }
    async fn proxied(&self, _: &Arc<Place>) -> Result<usize, StepError> {
        self.with(|state| state.log.retain(|name| *name != "proxied"));
        self.step(Step::Drain, "proxied", |state| state.proxied)
    }
    async fn dismiss(&self, _: &PodSpec) -> Result<(), StepError> {
        self.step(Step::Dismiss, "dismiss", |state| {
            state.acknowledged = false;
            state.listeners = false;
        })
    }
    async fn detach(&self, _: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::Unlink, "unlink", |state| state.link = false)
    }
    async fn remove_rules(&self, _: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::RemoveRules, "remove_rules", |state| state.rules = false)
    }
    async fn remove_entry(&self, place: &Arc<Place>) -> Result<(), StepError> {
        self.step(Step::RemoveEntry, "remove_entry", |state| {
            state.entry = None;
            state.touched.remove(&place.cookie);
        })
    }
    async fn leftovers(&self, place: &Arc<Place>) -> Result<Vec<String>, StepError> {
        self.with(|state| Ok(state.touched.get(&place.cookie).map(|_| "entry".to_owned()).into_iter().collect()))
    }
    async fn has_entry(&self, place: &Arc<Place>) -> Result<bool, StepError> {
        self.with(|state| Ok(state.entry.is_some() && state.cookie == place.cookie))
    }
}

struct Bench {
    node: Arc<Fake>,
    goal: watch::Sender<Goal>,
    nudge: watch::Sender<u64>,
    reports: Reports,
    actor: JoinHandle<()>,
}

pub(crate) fn pod() -> PodSpec {
    PodSpec {
        key: ObjectRef::new(Kind::Pod, "default", "web"),
        uid: PodId::new("u1").unwrap(),
        info: WorkloadInfo { name: "web".into(), namespace: "default".into(), service_account: "sa".into() },
        ips: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn out() -> Wanted {
    Wanted::Out { reason: "label".to_owned() }
}

impl Bench {
    fn start(wanted: Wanted, annotated: bool, state: State) -> Self {
        let node = Arc::new(Fake(Mutex::new(State { cookie: 7, annotated, ..state })));
        let (goal, goals) = watch::channel(Goal { pod: pod(), wanted });
        let (nudge, nudges) = watch::channel(0);
        let reports = Reports::default();
        let view = reports.view(&pod());
        let told = match (annotated, node.with(|state| state.pending)) {
            (true, _) => Some(Redirection::Enabled),
            (false, true) => Some(Redirection::Pending),
            (false, false) => None,
        };
        let actor = Actor::new(node.clone(), goals, nudges, view, TIMING, told, None);
        Self { node, goal, nudge, reports, actor: tokio::spawn(actor.run()) }
    }

    fn want(&self, wanted: Wanted) {
        self.goal.send(Goal { pod: pod(), wanted }).unwrap();
    }

    /// Lets the actor work, in the clock of the test, until `done`.
    async fn until(&self, done: impl Fn(&State) -> bool) {
        until(|| self.node.with(|state| done(state))).await;
    }

    async fn enrolled() -> Self {
        let bench = Self::start(Wanted::In, false, State::default());
        bench.until(|state| state.annotated).await;
        bench
    }

    fn log(&self) -> Vec<&'static str> {
        self.node.with(|state| std::mem::take(&mut state.log))
    }

    fn state(&self) -> PodState {
        self.reports.node("n").pods[0].state
    }

    fn assert_never_open(&self) {
        assert_eq!(self.node.with(|state| state.violation.clone()), None);
    }

    fn assert_nothing_left(&self) {
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
async fn pass(time: Duration) {
    let _: Result<(), tokio::time::error::Elapsed> = tokio::time::timeout(time, std::future::pending()).await;
}

/// `names` without repetitions in a row.
fn steps(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.dedup();
    names
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_announced_as_enrolled_after_everything_else() {
    let bench = Bench::enrolled().await;

    let expected = ["locate", "tag", "entry", "rules", "link", "announce", "capture", "annotate"];
    assert_eq!(steps(bench.log()), expected);
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_pod_leaves_in_the_opposite_order_and_nothing_is_left() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.want(out());
    bench.until(|state| state.entry.is_none()).await;

    let expected = ["withdraw", "release", "proxied", "dismiss", "unlink", "remove_rules", "remove_entry"];
    assert_eq!(steps(bench.log()), expected);
    bench.assert_nothing_left();
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_on_the_way_in_claims_nothing_and_is_tried_again() {
    for step in ENTRY_STEPS {
        let faults = HashMap::from([(step, 3)]);
        let bench = Bench::start(Wanted::In, false, State { faults, ..State::default() });

        bench.until(|state| state.faults[&step] == 1).await;
        assert!(!bench.node.with(|state| state.annotated), "claimed although {step} failed");
        bench.until(|state| state.annotated).await;

        bench.assert_never_open();
        bench.want(out());
        bench.until(|state| state.entry.is_none()).await;
        bench.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_gives_up_half_way_leaves_nothing_behind() {
    for step in ENTRY_STEPS {
        let faults = HashMap::from([(step, u32::MAX)]);
        let bench = Bench::start(Wanted::In, false, State { faults, ..State::default() });
        bench.until(|state| state.faults[&step] < u32::MAX - 2).await;

        bench.node.with(|state| state.faults.clear());
        bench.want(Wanted::Gone);
        tokio::time::timeout(GRACE, bench.actor).await.expect("the task ends").unwrap();

        let node = &bench.node;
        node.with(|state| assert!(state.touched.is_empty() && !state.annotated, "{step} left something behind"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_on_the_way_out_is_tried_again_until_nothing_is_left() {
    for step in EXIT_STEPS {
        let bench = Bench::enrolled().await;

        bench.node.with(|state| state.faults = HashMap::from([(step, 3)]));
        bench.want(out());
        bench.until(|state| state.entry.is_none() && state.faults[&step] == 0).await;

        bench.assert_nothing_left();
        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_acknowledge_a_departure_does_not_hold_it_up() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| state.faults = HashMap::from([(Step::Dismiss, u32::MAX)]));
    bench.want(out());

    bench.until(|state| state.entry.is_none() && !state.rules && !state.link).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_proxy_a_pod_that_asks_for_the_mesh_is_closed_and_not_claimed() {
    let faults = HashMap::from([(Step::Announce, u32::MAX)]);
    let bench = Bench::start(Wanted::In, false, State { faults, ..State::default() });

    bench.until(|state| state.entry == Some(Capture::On)).await;

    assert!(!bench.node.with(|state| state.annotated));
    assert_ne!(bench.state(), PodState::Enrolled);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_its_first_proxy_is_pending_then_enabled() {
    let faults = HashMap::from([(Step::Announce, 5)]);
    let bench = Bench::start(Wanted::In, false, State { faults, ..State::default() });

    bench.until(|state| state.pending).await;
    assert!(bench.node.with(|state| state.rules && state.link && state.entry == Some(Capture::On) && !state.annotated));
    bench.until(|state| state.annotated).await;

    let log = bench.log();
    assert!(!bench.node.with(|state| state.pending) && !log.contains(&"withdraw"), "{log:?}");
    assert_eq!(log.iter().filter(|step| **step == "pending").count(), 1, "{log:?}");
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_not_pending_before_its_rules_are_in_place() {
    let faults = HashMap::from([(Step::Rules, 5)]);
    let bench = Bench::start(Wanted::In, false, State { faults, ..State::default() });

    bench.until(|state| state.annotated).await;

    assert!(!bench.log().contains(&"pending"));
}

#[tokio::test(start_paused = true)]
async fn what_was_pending_is_taken_back_from_a_pod_that_leaves() {
    let kept = State {
        entry: Some(Capture::On),
        rules: true,
        link: true,
        pending: true,
        touched: BTreeSet::from([7]),
        ..State::default()
    };
    let bench = Bench::start(out(), false, kept);

    bench.until(|state| state.entry.is_none()).await;

    assert_eq!(steps(bench.log())[..2], ["withdraw", "locate"]);
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn listeners_stay_until_peers_have_heard_although_nothing_is_proxied() {
    let bench = Bench::enrolled().await;
    let begun = tokio::time::Instant::now();

    bench.want(out());
    bench.until(|state| !state.annotated).await;
    bench.until(|state| !state.listeners).await;

    assert!(begun.elapsed() >= leaving::HEARSAY, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn proxied_connections_may_finish_before_rules_and_listeners_go() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 2);
    let begun = tokio::time::Instant::now();

    bench.want(out());
    bench.until(|state| state.entry == Some(Capture::Off)).await;
    pass(Duration::from_secs(3)).await;
    assert!(bench.node.with(|state| state.rules && state.link && state.listeners));
    assert_eq!(bench.state(), PodState::Leaving);
    bench.node.with(|state| state.proxied = 0);
    bench.until(|state| state.entry.is_none()).await;

    assert!(begun.elapsed() < GRACE);
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn connections_that_do_not_end_are_cut_after_the_grace_period() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 1);
    let begun = tokio::time::Instant::now();

    bench.want(out());
    bench.until(|state| state.entry.is_none()).await;

    assert!(begun.elapsed() >= GRACE && begun.elapsed() < GRACE * 2);
}

#[tokio::test(start_paused = true)]
async fn a_goal_that_changes_on_the_way_out_does_not_prolong_the_grace_period() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 1);
    let begun = tokio::time::Instant::now();

    for reason in ["first", "second", "third"] {
        bench.want(Wanted::Out { reason: reason.to_owned() });
        pass(GRACE / 4).await;
    }
    bench.until(|state| state.entry.is_none()).await;

    assert!(begun.elapsed() >= GRACE && begun.elapsed() < GRACE + GRACE / 4, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_goals_a_pod_that_drains_is_left_as_it_is() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 1);
    bench.want(out());
    bench.until(|state| state.entry == Some(Capture::Off)).await;
    let Bench { node, goal, actor, .. } = bench;

    drop(goal);
    tokio::time::timeout(GRACE / 2, actor).await.expect("the task ends").unwrap();

    assert!(node.with(|state| state.entry == Some(Capture::Off) && state.link && state.rules));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_leaves_nothing_in_the_kernel_when_the_cluster_cannot_be_told() {
    let bench = Bench::enrolled().await;
    bench.node.fail(Step::Annotate, u32::MAX);

    bench.want(Wanted::Gone);
    tokio::time::timeout(GRACE * 6, bench.actor).await.expect("the task ends").unwrap();

    assert!(bench.node.with(|state| state.entry.is_none() && !state.rules && !state.link && !state.listeners));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_wanted_again_while_it_drains_is_captured_again() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 1);
    bench.want(out());
    bench.until(|state| state.entry == Some(Capture::Off)).await;
    bench.log();

    bench.want(Wanted::In);
    bench.until(|state| state.annotated).await;

    let log = bench.log();
    assert!(!log.contains(&"dismiss") && !log.contains(&"unlink"), "{log:?}");
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_removed_without_waiting_for_connections() {
    let bench = Bench::enrolled().await;
    bench.node.with(|state| state.proxied = 5);
    let begun = tokio::time::Instant::now();

    bench.want(Wanted::Gone);
    tokio::time::timeout(GRACE, bench.actor).await.expect("the task ends").unwrap();

    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(bench.node.with(|state| state.entry.is_none() && !state.annotated && state.touched.is_empty()));
    assert!(bench.reports.node("n").pods.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_fails_is_withdrawn_repaired_and_claimed_again() {
    let breaks: [fn(&mut State); 3] =
        [|state| state.rules = false, |state| state.link = false, |state| state.entry = None];
    for breaks in breaks {
        let bench = Bench::enrolled().await;
        bench.log();

        bench.node.with(breaks);
        bench.until(|state| state.log.contains(&"annotate")).await;

        let log = steps(bench.log());
        assert_eq!(log[0], "withdraw", "{log:?}");
        assert_eq!(log.last(), Some(&"annotate"));
        assert!(bench.node.with(|state| state.rules && state.link && state.entry == Some(Capture::On)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_restarts_costs_no_claim() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.node.with(|state| {
        state.listeners = false;
        state.acknowledged = false;
        state.faults = HashMap::from([(Step::Announce, 4)]);
    });
    bench.nudge.send_modify(|count| *count += 1);
    bench.until(|state| state.acknowledged && state.listeners).await;
    pass(Duration::from_secs(1)).await;

    assert!(!bench.log().contains(&"withdraw"));
    assert_eq!(bench.state(), PodState::Enrolled);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_stays_away_costs_no_claim_and_the_pod_stays_closed() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.node.with(State::lose_proxy);
    pass(Duration::from_secs(600)).await;

    assert!(!bench.log().contains(&"withdraw"), "peers would send plaintext, which the next proxy takes");
    assert!(bench.node.with(|state| state.annotated && state.entry == Some(Capture::On) && state.rules && state.link));
    let report = bench.reports.node("n").pods.remove(0);
    assert_eq!(report.state, PodState::Failed);
    assert!(report.reason.contains("announce"), "{}", report.reason);
    assert!(report.checks.iter().any(|check| check.name == "acknowledged" && !check.ok), "{:?}", report.checks);
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_processes_end_while_the_proxy_is_away_stays_announced() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.node.with(|state| {
        state.lose_proxy();
        state.faults.insert(Step::Locate, u32::MAX);
    });
    pass(Duration::from_secs(60)).await;

    assert!(!bench.log().contains(&"withdraw"));
    bench.node.with(|state| state.rules = false);
    bench.until(|state| !state.annotated).await;
}

#[tokio::test(start_paused = true)]
async fn listeners_that_were_opened_unseen_are_caught_up_with() {
    let bench = Bench::start(Wanted::In, false, State { listens_unseen: true, ..State::default() });

    bench.until(|state| state.annotated).await;

    assert!(bench.log().contains(&"catch_up"));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_finds_everything_proved_and_touches_nothing() {
    let kept = State {
        entry: Some(Capture::On),
        rules: true,
        link: true,
        listeners: true,
        acknowledged: true,
        ..State::default()
    };
    let bench = Bench::start(Wanted::In, true, kept);

    pass(Duration::from_secs(20)).await;

    assert_eq!(bench.log(), ["locate"]);
    assert_eq!(bench.state(), PodState::Enrolled);
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_an_earlier_pod_left_behind_is_withdrawn_first() {
    let bench = Bench::start(Wanted::In, true, State::default());

    bench.until(|state| state.annotated && state.entry == Some(Capture::On)).await;

    let log = steps(bench.log());
    assert_eq!(log[..2], ["locate", "withdraw"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lost_its_label_while_the_agent_was_down_leaves_in_order() {
    let kept =
        State { entry: Some(Capture::On), rules: true, link: true, touched: BTreeSet::from([7]), ..State::default() };
    let bench = Bench::start(out(), true, kept);

    bench.until(|state| state.entry.is_none()).await;

    assert_eq!(steps(bench.log())[..4], ["withdraw", "locate", "release", "proxied"]);
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_never_wanted_is_not_touched() {
    let bench = Bench::start(out(), false, State::default());

    pass(Duration::from_secs(20)).await;

    assert_eq!(bench.log(), ["locate"]);
    assert_eq!(bench.state(), PodState::NotSelected);
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_new_namespace_moves_and_the_old_one_is_cleared() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| {
        state.cookie = 8;
        state.link = false;
    });
    bench.until(|state| state.link && state.annotated && state.touched.contains(&8)).await;

    assert!(bench.node.with(|state| !state.touched.contains(&7)));
}

#[tokio::test(start_paused = true)]
async fn without_goals_the_task_ends_and_the_kernel_keeps_everything() {
    let bench = Bench::enrolled().await;
    let Bench { node, goal, actor, .. } = bench;

    drop(goal);
    tokio::time::timeout(GRACE, actor).await.expect("the task ends").unwrap();

    assert!(node.with(|state| state.annotated && state.link && state.rules));
}
