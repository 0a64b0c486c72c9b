//! On the way into the mesh.

use std::collections::HashMap;

use contract::admin::agent::PodState;

use super::bench::{Bench, out, steps};
use super::fake::State;
use super::{ENTRY_STEPS, GRACE};
use crate::enrol::{Capture, Step, Wanted};

#[tokio::test(start_paused = true)]
async fn a_pod_is_announced_as_enrolled_after_everything_else() {
    let bench = Bench::enrolled().await;

    let expected = ["locate", "tag", "entry", "rules", "link", "announce", "capture", "annotate"];
    assert_eq!(steps(bench.log()), expected);
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
async fn listeners_that_were_opened_unseen_are_caught_up_with() {
    let bench = Bench::start(Wanted::In, false, State { listens_unseen: true, ..State::default() });

    bench.until(|state| state.annotated).await;

    assert!(bench.log().contains(&"catch_up"));
}
