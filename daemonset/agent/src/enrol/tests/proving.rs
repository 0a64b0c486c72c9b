//! While a pod is in the mesh: what is proved, withdrawn and repaired.

use std::collections::HashMap;
use std::time::Duration;

use contract::admin::agent::PodState;

use super::TIMING;
use super::bench::{Bench, pass};
use super::fake::State;
use crate::enrol::entering::PROOF_DEADLINE;
use crate::enrol::{Capture, Redirection, Step};

#[tokio::test(start_paused = true)]
async fn a_proof_that_fails_is_repaired_and_the_pod_stays_announced() {
    let breaks: [fn(&mut State); 3] =
        [|state| state.rules = false, |state| state.link = false, |state| state.entry = None];
    for breaks in breaks {
        let bench = Bench::enrolled().await;
        bench.log();

        bench.node.with(breaks);
        bench.until(|state| state.rules && state.link && state.entry == Some(Capture::On)).await;
        pass(Duration::from_secs(1)).await;

        assert_eq!(bench.state(), PodState::Enrolled);
        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_to_the_routing_is_repaired_when_it_is_told_and_without_another_step() {
    let bench = Bench::enrolled().await;
    bench.log();
    let begun = tokio::time::Instant::now();

    bench.node.with(|state| state.rules = false);
    bench.node.disturb();
    bench.until(|state| state.rules).await;

    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
    assert_eq!(bench.log(), ["mend"]);
    assert_eq!(bench.state(), PodState::Enrolled);
}

#[tokio::test(start_paused = true)]
async fn routing_that_cannot_be_mended_is_proved_at_once_and_repaired_by_all_steps() {
    let bench = Bench::enrolled().await;
    bench.log();
    let begun = tokio::time::Instant::now();

    bench.node.fail(Step::Mend, 1);
    bench.node.with(|state| state.rules = false);
    bench.node.disturb();
    bench.until(|state| state.rules).await;

    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    assert!(bench.log().contains(&"rules"));
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_somebody_else_changed_is_set_again() {
    for found in [None, Some(Redirection::Pending)] {
        let bench = Bench::enrolled().await;
        bench.log();

        bench.deliver(found);
        bench.until(|state| state.log.contains(&"annotate")).await;
        bench.deliver(Some(Redirection::Enabled));
        bench.log();
        pass(Duration::from_secs(30)).await;

        assert_eq!(bench.log(), [""; 0]);
        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_late_makes_nobody_write_the_annotation_again() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.deliver(Some(Redirection::Pending));
    pass(TIMING.proof_interval + Duration::from_millis(100)).await;
    bench.deliver(Some(Redirection::Enabled));
    pass(Duration::from_secs(30)).await;

    assert_eq!(bench.log(), [""; 0]);
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
    bench.node_changes.send_modify(|count| *count += 1);
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
    assert_eq!(report.state, PodState::Broken);
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

    bench.node.with(|state| state.rules = false);
    pass(Duration::from_secs(60)).await;

    assert!(!bench.log().contains(&"withdraw"));
    assert_eq!(bench.state(), PodState::Broken);
    bench.assert_never_open();
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
async fn a_proof_that_does_not_end_says_nothing_and_is_reported() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| state.proof_hangs = true);
    pass(PROOF_DEADLINE * 4).await;

    let report = bench.reports.node("n").pods.remove(0);
    assert_eq!(report.state, PodState::Unverified);
    let late = format!("{PROOF_DEADLINE:?}");
    assert!(report.checks.iter().all(|check| check.unreadable && check.detail.contains(&late)), "{report:?}");
    bench.node.with(|state| state.proof_hangs = false);
    crate::enrol::tests::until(|| bench.state() == PodState::Enrolled).await;
    bench.assert_never_open();
}

#[tokio::test(start_paused = true)]
async fn links_of_an_earlier_moment_may_prove_a_pod_and_accuse_none() {
    let bench = Bench::enrolled().await;
    bench.log();

    bench.node.with(|state| state.old_links_lack_ours = true);
    pass(Duration::from_secs(60)).await;

    assert_eq!(bench.log(), [""; 0]);
    assert_eq!(bench.state(), PodState::Enrolled);
}

#[tokio::test(start_paused = true)]
async fn what_may_take_connections_from_the_proxy_is_reported_and_no_reason_to_doubt_the_proof() {
    let bench = Bench::enrolled().await;
    let hazards = || bench.reports.node("n").pods.remove(0).hazards;
    bench.log();

    bench.node.with(|state| state.hazards = vec!["xdp: a program on eth0".to_owned()]);
    crate::enrol::tests::until(|| !hazards().is_empty()).await;
    assert_eq!((bench.log(), bench.state()), (Vec::new(), PodState::Enrolled));
    bench.node.with(|state| state.hazards.clear());
    crate::enrol::tests::until(|| hazards().is_empty()).await;
}
