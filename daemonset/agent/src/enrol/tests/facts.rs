//! The table of facts: each one unreadable, missing and wrong in an enrolled pod, what is announced meanwhile, what is
//! reported, and which step repairs it. A fact without a row does not compile.

use std::time::Duration;

use contract::admin::agent::PodState;

use super::bench::{Bench, pass};
use super::fake::{Injected, State};
use crate::enrol::{Fact, Reading, Step};

/// Disturbance of a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    Unreadable,
    Missing,
    Wrong,
}

const DISTURBANCES: [Disturbance; 3] = [Disturbance::Unreadable, Disturbance::Missing, Disturbance::Wrong];

/// The step that repairs a fact that is missing or wrong; `None`: no step of the agent can, it waits for somebody else.
fn repaired_by(fact: Fact) -> Option<Step> {
    match fact {
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
        | Fact::ProxyTag
        | Fact::ProxyCgroup => Some(Step::Tag),
        Fact::PodEntry | Fact::Probes => Some(Step::Entry),
        Fact::SkLookup => Some(Step::Link),
        Fact::Settings | Fact::Rules | Fact::Outbound => Some(Step::Rules),
        Fact::Listeners => Some(Step::CatchUp),
        Fact::Acknowledged => Some(Step::Announce),
        // Of the namespace itself: another namespace of the pod is found, or the pod's address comes back.
        Fact::NetnsCookie | Fact::Address => Some(Step::Locate),
        // Routes of the local table, which the kernel makes with the address.
        Fact::Inbound => None,
    }
}

fn inject(state: &mut State, fact: Fact, disturbance: Disturbance) {
    let reading = match disturbance {
        Disturbance::Unreadable => Reading::Unreadable("EMFILE".to_owned()),
        Disturbance::Missing => Reading::Fails("missing".to_owned()),
        Disturbance::Wrong => Reading::Fails("another".to_owned()),
    };
    // What cannot be read is repaired by no step.
    let repaired_by = repaired_by(fact).filter(|_| disturbance != Disturbance::Unreadable);
    state.injected.insert(fact, Injected { reading, repaired_by });
}

fn every_case() -> impl Iterator<Item = (Fact, Disturbance)> {
    Fact::ALL.into_iter().flat_map(|fact| DISTURBANCES.map(|disturbance| (fact, disturbance)))
}

#[tokio::test(start_paused = true)]
async fn whatever_a_fact_reads_an_enrolled_pod_stays_announced_and_what_fails_is_repaired() {
    for (fact, disturbance) in every_case() {
        let bench = Bench::enrolled().await;

        bench.node.with(|state| inject(state, fact, disturbance));
        pass(Duration::from_secs(20)).await;

        let report = bench.reports.node("n").pods.remove(0);
        let repairs = disturbance != Disturbance::Unreadable && repaired_by(fact).is_some();
        let expected = match disturbance {
            _ if repairs => PodState::Enrolled,
            Disturbance::Unreadable => PodState::Unverified,
            Disturbance::Missing | Disturbance::Wrong => PodState::Broken,
        };
        assert_eq!(report.state, expected, "{fact:?} {disturbance:?}: {report:?}");
        if !repairs {
            let check = report.checks.iter().find(|check| check.name == fact.name()).expect("the fact is reported");
            assert_eq!((check.ok, check.unreadable), (false, disturbance == Disturbance::Unreadable), "{check:?}");
            assert!(report.reason.contains(fact.name()), "{fact:?} {disturbance:?}: {}", report.reason);
        }
        bench.assert_never_open();
        assert!(!bench.log().contains(&"withdraw"), "{fact:?} {disturbance:?}");
        bench.node.with(|state| state.injected.clear());
        pass(Duration::from_secs(10)).await;
        assert_eq!(bench.state(), PodState::Enrolled, "{fact:?} {disturbance:?}");
        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn an_enrolled_pod_with_a_fact_that_cannot_be_read_is_left_alone() {
    for fact in Fact::ALL {
        let bench = Bench::enrolled().await;
        bench.log();

        bench.node.with(|state| inject(state, fact, Disturbance::Unreadable));
        pass(Duration::from_secs(20)).await;

        let log = bench.log();
        assert!(log.iter().all(|step| *step == "locate"), "{fact:?}: {log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_joins_is_not_announced_before_every_fact_was_read_and_holds() {
    for (fact, disturbance) in every_case() {
        let mut state = State::default();
        inject(&mut state, fact, disturbance);
        state.injected.values_mut().for_each(|injected| injected.repaired_by = None);
        let bench = Bench::start(crate::enrol::Wanted::In, false, state);

        pass(Duration::from_secs(20)).await;
        assert!(!bench.node.is_annotated(), "{fact:?} {disturbance:?}");
        assert_eq!(bench.state(), PodState::Failed, "{fact:?} {disturbance:?}");
        bench.node.with(|state| state.injected.clear());
        bench.until(|state| state.annotated).await;

        bench.assert_never_open();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_leaves_by_its_label_whatever_a_fact_reads() {
    for (fact, disturbance) in every_case() {
        let bench = Bench::enrolled().await;
        bench.node.with(|state| {
            inject(state, fact, disturbance);
            state.injected.values_mut().for_each(|injected| injected.repaired_by = None);
        });
        pass(Duration::from_secs(5)).await;

        bench.want(super::bench::out());
        bench.until(|state| state.entry.is_none()).await;

        bench.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_restarts_and_cannot_read_a_fact_keeps_the_pod_announced() {
    for (fact, disturbance) in every_case() {
        let bench = Bench::enrolled().await;
        bench.node.with(|state| {
            inject(state, fact, disturbance);
            state.injected.values_mut().for_each(|injected| injected.repaired_by = None);
        });

        let bench = bench.restart(crate::enrol::Wanted::In).await;
        pass(Duration::from_secs(20)).await;

        assert!(bench.node.is_annotated() && !bench.log().contains(&"withdraw"), "{fact:?} {disturbance:?}");
        assert!(matches!(bench.state(), PodState::Unverified | PodState::Broken), "{fact:?} {disturbance:?}");
        bench.node.with(|state| state.injected.clear());
        pass(Duration::from_secs(10)).await;
        assert_eq!(bench.state(), PodState::Enrolled, "{fact:?} {disturbance:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_in_an_enrolled_pod_does_not_end_its_announcement() {
    for step in super::ENTRY_STEPS {
        let bench = Bench::enrolled().await;

        bench.node.with(|state| {
            state.rules = false;
            state.faults.insert(step, u32::MAX);
        });
        pass(Duration::from_secs(60)).await;

        bench.assert_never_open();
        assert!(bench.node.is_annotated(), "{step}");
    }
}
