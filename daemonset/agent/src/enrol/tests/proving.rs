//! While a pod is in the mesh: what is proved, withdrawn and repaired.

use std::collections::HashMap;
use std::time::Duration;

use model::report::PodState;

use super::bench::{Bench, pass, steps};
use super::fake::State;
use crate::enrol::entering::PROOF_DEADLINE;
use crate::enrol::{Capture, Step};

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
async fn a_proof_that_does_not_end_is_none() {
    let bench = Bench::enrolled().await;

    bench.node.with(|state| state.proof_hangs = true);
    bench.until(|state| !state.annotated).await;

    let report = bench.reports.node("n").pods.remove(0);
    assert_eq!(report.state, PodState::Failed);
    assert!(report.checks.iter().any(|check| !check.ok && check.detail.contains(&format!("{PROOF_DEADLINE:?}"))));
    bench.node.with(|state| state.proof_hangs = false);
    bench.until(|state| state.annotated).await;
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
