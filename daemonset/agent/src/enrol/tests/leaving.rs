//! On the way out of the mesh.

use std::collections::HashMap;
use std::time::Duration;

use contract::admin::agent::PodState;

use super::bench::{Bench, out, pass, steps};
use super::fake::State;
use super::{EXIT_STEPS, GRACE};
use crate::enrol::{Capture, Step, Wanted, leaving};

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
async fn a_pod_is_not_reported_outside_before_its_proxy_has_confirmed() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| state.faults = HashMap::from([(Step::Dismiss, u32::MAX)]));
    bench.want(out());
    bench.until(|state| state.entry.is_none()).await;
    pass(Duration::from_secs(60)).await;

    let report = bench.reports.node("n").pods.remove(0);
    assert_eq!(report.state, PodState::Failed, "{report:?}");
    assert!(report.reason.contains("dismiss"), "{report:?}");
    assert!(bench.node.with(|state| state.entry.is_none()), "the pod was entered again");
    bench.node.with(|state| state.faults.clear());
    crate::enrol::tests::until(|| bench.state() == PodState::NotSelected).await;
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_ended_stays_closed_until_its_proxy_has_confirmed() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| state.faults = HashMap::from([(Step::Dismiss, u32::MAX)]));
    bench.want(Wanted::Finished { reason: "the pod has finished".to_owned() });
    bench.until(|state| !state.annotated).await;
    pass(Duration::from_secs(60)).await;

    let report = bench.reports.node("n").pods.remove(0);
    assert_eq!(report.state, PodState::Failed, "{report:?}");
    assert!(report.reason.contains("dismiss"), "{report:?}");
    assert!(bench.node.with(|state| state.entry == Some(Capture::On) && state.rules && state.link));
    bench.node.with(|state| state.faults.clear());
    bench.until(|state| state.entry.is_none()).await;
    bench.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_leaves_nothing_in_the_kernel_when_its_proxy_does_not_confirm() {
    let bench = Bench::enrolled().await;
    bench.node.fail(Step::Dismiss, u32::MAX);

    bench.want(Wanted::Gone);
    tokio::time::timeout(GRACE * 6, bench.actor).await.expect("the task ends").unwrap();

    assert!(bench.node.with(|state| state.entry.is_none() && !state.rules && !state.link && !state.annotated));
}

#[tokio::test(start_paused = true)]
async fn listeners_stay_until_peers_have_heard_although_nothing_is_proxied() {
    let bench = Bench::enrolled().await;
    let begun = tokio::time::Instant::now();

    bench.want(out());
    bench.until(|state| !state.annotated).await;
    bench.until(|state| !state.listeners).await;

    assert!(begun.elapsed() >= leaving::PROPAGATION, "{:?}", begun.elapsed());
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
async fn a_deleted_pod_leaves_nothing_in_the_kernel_when_the_cluster_cannot_be_told() {
    let bench = Bench::enrolled().await;
    bench.node.fail(Step::Annotate, u32::MAX);

    bench.want(Wanted::Gone);
    tokio::time::timeout(GRACE * 6, bench.actor).await.expect("the task ends").unwrap();

    assert!(bench.node.with(|state| state.entry.is_none() && !state.rules && !state.link && !state.listeners));
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
async fn a_pod_that_was_never_wanted_is_not_touched() {
    let bench = Bench::start(out(), false, State::default());

    pass(Duration::from_secs(20)).await;

    assert_eq!(bench.log(), ["locate"]);
    assert_eq!(bench.state(), PodState::NotSelected);
}
