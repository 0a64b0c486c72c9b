//! Any history of changes gives what the objects that are left give at once: resources, findings, conditions and statuses.

#[allow(dead_code, reason = "shared with other tests")]
mod support;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use compile::Compiler;
use graph::Mesh;
use kube_types::{ObjectRef, Resource};
use proptest::prelude::*;
use serde_json::Value;
use support::Subscriber;

/// States that objects may have, several for most: what they refer to each other by is short of names, so that they meet.
static STATES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let documents = include_str!("support/states.yaml").split("\n---\n");
    documents.flat_map(proxy::resources).collect()
});

#[derive(Clone, Debug)]
enum Step {
    /// The object gets the state of this index.
    Apply(usize),
    /// The object with that state is deleted.
    Remove(usize),
    /// Changes so far go out.
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = || 0..STATES.len();
    let step = prop_oneof![
        6 => index().prop_map(Step::Apply),
        2 => index().prop_map(Step::Remove),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

/// Everything that a subscriber and a user see. Which addresses are allocated depends on the history.
fn seen(subscriber: &Subscriber) -> Value {
    let conditions: BTreeMap<_, _> =
        subscriber.conditions.iter().filter(|(_, conditions)| conditions != &&serde_json::json!([])).collect();
    let statuses: BTreeMap<_, _> =
        subscriber.statuses.iter().map(|(key, status)| (key, &status["conditions"])).collect();
    let statuses: BTreeMap<_, _> = statuses.into_iter().filter(|(_, conditions)| !conditions.is_null()).collect();
    serde_json::json!({
        "resources": subscriber.to_json(),
        "findings": subscriber.findings,
        "conditions": conditions,
        "statuses": statuses,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_history_of_changes_gives_what_its_end_gives_at_once(steps in steps()) {
        let mut objects = BTreeMap::<ObjectRef, Resource>::new();
        let (mut compiler, mut subscriber) = (Compiler::new(Mesh::default()), Subscriber::default());
        for step in steps {
            match step {
                Step::Apply(index) => {
                    let state = STATES[index].clone();
                    objects.insert(state.key(), state.clone());
                    compiler.apply(state);
                }
                Step::Remove(index) => {
                    let key = STATES[index].key();
                    objects.remove(&key);
                    compiler.remove(&key);
                }
                Step::Settle => subscriber.take(compiler.settle()),
            }
        }
        subscriber.take(compiler.settle());

        let (mut fresh, mut at_once) = (Compiler::new(Mesh::default()), Subscriber::default());
        objects.into_values().for_each(|object| fresh.apply(object));
        at_once.take(fresh.settle());

        prop_assert_eq!(seen(&subscriber), seen(&at_once));
    }
}
