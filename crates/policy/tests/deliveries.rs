//! Policies and workloads in every order of arrival: while every version of the mesh refuses a connection, no moment in
//! between lets it in.

use std::collections::BTreeSet;

use model::{Action, Address, Authorization, Change, Scope, State, StateConfig, Workload};
use policy::{Connection, ConnectionRegistry, Decision, DenyReason, Logging};
use proptest::prelude::*;

const UID: &str = "Kubernetes//Pod/ns/a";

/// Names of policies that the workload refers to in one version of the mesh. Each denies everything; at least one is there.
type Version = BTreeSet<u8>;

/// A message on its way.
#[derive(Clone, Debug)]
enum Message {
    Policy(u8),
    PolicyGone(u8),
    Workload(Version),
    WorkloadGone,
}

fn apply(state: &State, message: &Message) {
    let key = |name: &u8| format!("ns/p{name}");
    match message {
        Message::Policy(name) => state.apply_authorizations(vec![Change::Upsert(Authorization {
            name: format!("p{name}").into(),
            namespace: "ns".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: vec![vec![]],
            dry_run: false,
        })]),
        Message::PolicyGone(name) => state.apply_authorizations(vec![Change::Remove(key(name).into())]),
        Message::Workload(version) => {
            let policies: Vec<String> = version.iter().map(key).collect();
            let json = serde_json::json!({
                "uid": UID, "name": "a", "namespace": "ns", "node": "n1", "authorizationPolicies": policies,
            });
            let workload: Workload = serde_json::from_value(json).unwrap();
            state.apply_addresses(vec![Change::Upsert(Address::Workload(workload))]);
        }
        Message::WorkloadGone => drop(state.apply_addresses(vec![Change::Remove(UID.into())])),
    }
}

/// The messages of each type, in the order in which the type's stream has them.
fn messages(versions: &[Version]) -> (Vec<Message>, Vec<Message>) {
    let (mut policies, mut addresses, mut before) = (Vec::new(), Vec::new(), Version::new());
    for (number, version) in versions.iter().enumerate() {
        policies.extend(version.difference(&before).map(|name| Message::Policy(*name)));
        policies.extend(before.difference(version).map(|name| Message::PolicyGone(*name)));
        if number % 3 == 2 {
            addresses.push(Message::WorkloadGone);
        }
        addresses.push(Message::Workload(version.clone()));
        before.clone_from(version);
    }
    (policies, addresses)
}

fn decide(state: &State, registry: &ConnectionRegistry) -> Option<Decision> {
    let workload = state.workload(UID)?;
    let connection =
        Connection { source: "10.0.0.2".parse().unwrap(), destination: "10.0.0.1:80".parse().unwrap(), identity: None };
    Some(registry.register(connection, workload).evaluate())
}

proptest! {
    #[test]
    fn no_order_of_arrival_lets_a_connection_in(
        versions in prop::collection::vec(prop::collection::btree_set(0_u8..4, 1..4), 1..8),
        order in prop::collection::vec((any::<bool>(), 1_usize..3), 80),
    ) {
        let state = State::new(StateConfig { network: "".into(), node: Some("n1".into()) });
        state.set_policies_synced();
        let registry = ConnectionRegistry::new(state.clone(), Logging::Debug);
        let (policies, addresses) = messages(&versions);
        let (mut policies, mut addresses) = (policies.iter().peekable(), addresses.iter().peekable());

        for (policy_first, times) in order {
            let next = if policy_first && policies.peek().is_some() || addresses.peek().is_none() {
                policies.next()
            } else {
                addresses.next()
            };
            let Some(message) = next else { break };
            for _ in 0..times {
                apply(&state, message);
                if let Some(Decision::Allow { by }) = decide(&state, &registry) {
                    prop_assert!(false, "allowed by {by:?} after {message:?}");
                }
            }
        }

        if policies.peek().is_none() && addresses.peek().is_none() {
            let explicit = matches!(
                decide(&state, &registry),
                Some(Decision::Deny { reason: DenyReason::Explicit(_), .. })
            );
            prop_assert!(explicit, "decided by the policies of the last version");
            prop_assert_eq!(state.retained_policies(), 0);
        }
    }
}
