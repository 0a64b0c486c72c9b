//! An agent that follows another one, wherever that one ended.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::admin::agent::PodState;

use super::GRACE;
use super::bench::{Bench, out, pass, steps};
use super::fake::State;
use crate::enrol::{Capture, Step, Wanted};

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
async fn a_pod_of_which_nothing_is_left_in_the_kernel_stays_announced_and_is_enrolled_again() {
    let bench = Bench::start(Wanted::In, true, State::default());

    bench.until(|state| state.listeners && state.entry == Some(Capture::On)).await;
    pass(Duration::from_secs(1)).await;

    assert_eq!(bench.state(), PodState::Enrolled);
    bench.assert_never_open();
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
async fn a_pod_that_lost_its_label_while_the_agent_was_down_leaves_in_order() {
    let kept =
        State { entry: Some(Capture::On), rules: true, link: true, touched: BTreeSet::from([7]), ..State::default() };
    let bench = Bench::start(out(), true, kept);

    bench.until(|state| state.entry.is_none()).await;

    assert_eq!(steps(bench.log())[..4], ["withdraw", "locate", "release", "proxied"]);
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn without_goals_the_task_ends_and_the_kernel_keeps_everything() {
    let bench = Bench::enrolled().await;
    let Bench { node, goal, actor, .. } = bench;

    drop(goal);
    tokio::time::timeout(GRACE, actor).await.expect("the task ends").unwrap();

    assert!(node.with(|state| state.annotated && state.link && state.rules));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_finished_while_the_agent_was_down_stays_closed_until_its_proxy_has_connected_and_confirmed() {
    let kept = State {
        entry: Some(Capture::On),
        rules: true,
        link: true,
        listeners: true,
        proxy_is_late: true,
        touched: BTreeSet::from([7]),
        ..State::default()
    };
    let bench = Bench::take_over(Wanted::Finished { reason: "the pod has finished".to_owned() }, kept).await;

    pass(Duration::from_secs(60)).await;
    assert!(bench.node.with(|state| state.entry.is_some() && state.rules && state.link));
    assert_eq!(bench.state(), PodState::Failed);
    bench.node.with(|state| state.proxy_is_late = false);
    bench.until(|state| state.entry.is_none()).await;

    bench.assert_nothing_left();
}

/// More steps than the way in or out takes.
const MOST_STEPS: usize = 12;

#[tokio::test(start_paused = true)]
async fn wherever_an_agent_dies_on_the_way_in_the_next_one_brings_the_pod_in_and_out() {
    for dies_before in 0..MOST_STEPS {
        let bench = Bench::start(Wanted::In, false, State { halts_before: Some(dies_before), ..State::default() });
        pass(Duration::from_secs(2)).await;
        bench.assert_never_open();

        let bench = bench.restart(Wanted::In).await;
        bench.until(|state| state.annotated && state.acknowledged && state.listeners).await;
        bench.assert_never_open();
        bench.want(out());
        bench.until(|state| state.entry.is_none()).await;

        bench.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_an_agent_dies_on_the_way_out_the_next_one_ends_it() {
    for dies_before in 0..MOST_STEPS {
        let bench = Bench::enrolled().await;
        bench.node.with(|state| state.halts_before = Some(state.steps + dies_before));
        bench.want(out());
        pass(GRACE * 2).await;

        let bench = bench.restart(out()).await;
        bench.until(|state| state.entry.is_none()).await;
        pass(Duration::from_secs(1)).await;

        assert_eq!(bench.state(), PodState::NotSelected, "before step {dies_before}");
        bench.assert_nothing_left();
        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_an_earlier_agent_enrolled_is_not_outside_before_its_namespace_was_looked_into() {
    let kept = State {
        entry: Some(Capture::On),
        rules: true,
        link: true,
        touched: BTreeSet::from([7]),
        faults: [(Step::Locate, 3)].into(),
        ..State::default()
    };
    let bench = Bench::start(out(), true, kept);

    bench.until(|state| state.faults[&Step::Locate] < 3).await;
    assert_eq!(bench.state(), PodState::Failed);
    bench.until(|state| state.entry.is_none()).await;

    bench.assert_nothing_left();
}
