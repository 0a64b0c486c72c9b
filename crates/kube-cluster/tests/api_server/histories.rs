//! Random histories of objects under random faults: when they end, the consumer has what the server has, and on the way
//! nothing was removed that existed.

use std::time::Duration;

use kube_cluster::{Verb, Watched};
use kube_types::{Kind, ObjectRef};
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::{Value, json};

use crate::consumer::Consumer;
use crate::fake::{Fake, Fault, When};

const KINDS: [Kind; 3] = [Kind::Namespace, Kind::PeerAuthentication, Kind::Pod];

/// Objects of a kind.
const NAMES: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    Put {
        kind: Kind,
        name: usize,
        is_good: bool,
    },
    Delete {
        kind: Kind,
        name: usize,
    },
    /// Deleted and made again between two looks.
    Replace {
        kind: Kind,
        name: usize,
    },
    Fail {
        verb: Verb,
        kind: Option<Kind>,
        after: usize,
        times: usize,
        fault: Fault,
    },
    Heal,
    Cut,
    Compact,
    Bookmark,
    /// Refuses a kind, or grants all.
    Serve {
        is_served: bool,
    },
    Wait(Duration),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(KINDS.as_slice())
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        prop::sample::select(vec![401, 403, 404, 410, 429, 500, 503])
            .prop_flat_map(|code| prop::option::of(1..90_u64).prop_map(move |pause| Fault::Refuse(code, pause))),
        Just(Fault::NoAnswer),
        Just(Fault::Hang),
        (1..100_u64).prop_map(|seconds| Fault::Slow(Duration::from_secs(seconds))),
        (0..2000_usize).prop_map(Fault::Cut),
        (1..300_usize).prop_map(Fault::Split),
        Just(Fault::Twice),
        (1..20_u64).prop_map(Fault::Again),
        prop::sample::select(vec!["{", "null", r#"{"type":"ADDED","object":{"metadata":{"name":"x"}}}"#, "\u{fffd}"])
            .prop_map(Fault::Garbage),
        Just(Fault::ExpiredInStream),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let verb = prop::sample::select(vec![Verb::List, Verb::Watch, Verb::Watch]);
    let fail = (verb, prop::option::of(kind()), 0..3_usize, 1..6_usize, fault());
    prop_oneof![
        6 => (kind(), 0..NAMES, prop::bool::weighted(0.85)).prop_map(|(kind, name, is_good)| Step::Put { kind, name, is_good }),
        3 => (kind(), 0..NAMES).prop_map(|(kind, name)| Step::Delete { kind, name }),
        1 => (kind(), 0..NAMES).prop_map(|(kind, name)| Step::Replace { kind, name }),
        3 => fail.prop_map(|(verb, kind, after, times, fault)| Step::Fail { verb, kind, after, times, fault }),
        1 => Just(Step::Heal),
        2 => Just(Step::Cut),
        2 => Just(Step::Compact),
        1 => Just(Step::Bookmark),
        1 => any::<bool>().prop_map(|is_served| Step::Serve { is_served }),
        4 => (0..200_000_u64).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
    ]
}

fn key(kind: Kind, name: usize) -> ObjectRef {
    let namespace = if kind.is_namespaced() { ["app", "app-2"][name % 2] } else { "" };
    ObjectRef::new(kind, namespace, format!("object-{name}"))
}

/// The form of an object that has this number. A bad one has a field of the wrong type.
fn form(kind: Kind, number: usize, is_good: bool) -> Value {
    let metadata = json!({ "labels": { "number": number.to_string() } });
    match (kind, is_good) {
        (Kind::Pod, false) => json!({ "metadata": metadata, "spec": { "containers": 7 } }),
        (Kind::PeerAuthentication, false) => json!({ "metadata": metadata, "spec": { "mtls": { "mode": "SOFT" } } }),
        _ => json!({ "metadata": metadata, "spec": {} }),
    }
}

/// Namespaces have no field that can be wrong.
fn is_broken(key: &ObjectRef, object: &Value) -> bool {
    kube_types::Resource::from_value(key.kind, object.clone()).is_err()
}

fn take(fake: &Fake, number: usize, step: &Step) {
    let put = |kind, name, is_good| {
        let ObjectRef { kind, namespace, name } = key(kind, name);
        fake.put(kind, &namespace, &name, form(kind, number, is_good));
    };
    let delete = |kind, name| {
        let ObjectRef { kind, namespace, name } = key(kind, name);
        fake.delete(kind, &namespace, &name);
    };
    match step.clone() {
        Step::Put { kind, name, is_good } => put(kind, name, is_good),
        Step::Delete { kind, name } => delete(kind, name),
        Step::Replace { kind, name } => {
            delete(kind, name);
            put(kind, name, true);
        }
        Step::Fail { verb, kind, after, times, fault } => {
            let plural = kind.map_or("", Kind::plural);
            fake.fail(When::next(verb).of(plural).after(after).times(times), fault);
        }
        Step::Heal => fake.heal(),
        Step::Cut => fake.cut_watches(),
        Step::Compact => fake.compact(),
        Step::Bookmark => fake.bookmark(),
        Step::Serve { is_served } => fake.serve(Kind::PeerAuthentication, "v1", is_served),
        Step::Wait(_) => {}
    }
}

async fn play(steps: Vec<Step>) {
    let fake = Fake::default();
    let mut consumer = Consumer::open(&fake, KINDS.map(Watched::all).to_vec());
    for (number, step) in steps.iter().enumerate() {
        take(&fake, number, step);
        if let Step::Wait(time) = step {
            consumer.for_time(*time).await;
        }
    }

    // The dust settles.
    fake.serve(Kind::PeerAuthentication, "v1", true);
    fake.heal();
    consumer.until("in sync", |consumer| consumer.is_in_sync).await;
    let settled = |consumer: &Consumer| consumer.missing().is_empty() && consumer.source.health().is_well();
    consumer.for_time(Duration::from_secs(600)).await;

    assert!(settled(&consumer), "missing {:?}: {:#?}", consumer.missing(), consumer.log);
    let objects = fake.objects();
    // A broken object is in its last good form or not there; nothing else is too much.
    for key in consumer.objects.keys() {
        assert!(objects.iter().any(|(existing, _)| existing == key), "{key} is gone: {:#?}", consumer.log);
    }
    let broken: Vec<_> =
        objects.iter().filter(|(key, object)| is_broken(key, object)).map(|(key, _)| key.name.clone()).collect();
    let mut told: Vec<_> = consumer.problems.values().flatten().map(|problem| problem.subject.name.clone()).collect();
    told.sort();
    let mut expected = broken;
    expected.sort();
    assert_eq!(told, expected, "{:#?}", consumer.log);
}

#[test]
fn what_is_replayed_is_what_the_server_has_whatever_fails_on_the_way() {
    // Failures are shrunk by the runner; nothing is written beside the sources.
    let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..40))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps));
    });
}
