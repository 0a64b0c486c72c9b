//! Store and index: what is found after which updates.

use std::time::Duration;

use super::*;
use crate::{
    Action, HealthPolicy, LoadBalancer, NetworkAddress, Scope, Visibility,
    testing::{service, workload},
};

const NET: &str = "";

fn state() -> State {
    State::new(StateConfig { network: NET.into(), node: Some("node-1".into()) })
}

fn apply(state: &State, addresses: impl IntoIterator<Item = Address>) -> Applied {
    state.apply_addresses(addresses.into_iter().map(Change::Upsert).collect())
}

fn remove(state: &State, name: &str) -> Applied {
    state.apply_addresses(vec![Change::Remove(name.into())])
}

fn endpoints(state: &State, hostname: &str) -> Vec<String> {
    let dump = state.dump();
    let service = dump.services.iter().find(|s| s.service.hostname == *hostname).unwrap();
    service.endpoints.keys().map(ToString::to_string).collect()
}

fn at(state: &State, ip: &str, namespace: &str) -> Option<String> {
    let found = state.read().index.service_by_address(&NET.into(), ip.parse().unwrap(), namespace)?;
    Some(found.name.to_string())
}

#[test]
fn a_workload_is_found_by_uid_and_by_address_until_it_is_removed() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1"))]);
    let ip = "10.0.0.1".parse().unwrap();

    assert_eq!(state.workload_by_address(NET, ip).unwrap().name, "a");
    assert!(state.workload_by_address("other", ip).is_none());
    remove(&state, "Kubernetes//Pod/ns/a");

    assert!(state.workload_by_address(NET, ip).is_none());
    assert!(state.workload("Kubernetes//Pod/ns/a").is_none());
}

#[test]
fn an_update_replaces_addresses() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1"))]);
    apply(&state, [Address::Workload(workload("a", "10.0.0.2"))]);

    assert!(state.workload_by_address(NET, "10.0.0.1".parse().unwrap()).is_none());
    assert!(state.workload_by_address(NET, "10.0.0.2".parse().unwrap()).is_some());
}

#[test]
fn of_workloads_with_one_address_a_captured_pod_is_meant() {
    let state = state();
    let entry = |name: &str, uid: &str, protocol| Workload { uid: uid.into(), protocol, ..workload(name, "10.0.0.1") };
    let order = [
        entry("plain-entry", "e/1", InboundProtocol::TCP),
        entry("captured-entry", "e/2", InboundProtocol::HBONE),
        entry("plain-pod", "c//Pod/ns/1", InboundProtocol::TCP),
        entry("captured-pod", "c//Pod/ns/2", InboundProtocol::HBONE),
    ];
    let found = || state.workload_by_address(NET, "10.0.0.1".parse().unwrap()).unwrap().name.to_string();

    for workload in order.clone() {
        let name = workload.name.to_string();
        apply(&state, [Address::Workload(workload)]);
        assert_eq!(found(), name);
    }
    remove(&state, "c//Pod/ns/2");
    assert_eq!(found(), "plain-pod");
}

#[test]
fn a_workload_of_the_host_network_is_not_found_by_address() {
    let state = state();
    let host = Workload { network_mode: crate::NetworkMode::HostNetwork, ..workload("a", "10.0.0.1") };

    apply(&state, [Address::Workload(host)]);

    assert!(state.workload_by_address(NET, "10.0.0.1".parse().unwrap()).is_none());
    assert!(state.workload("Kubernetes//Pod/ns/a").is_some());
}

#[test]
fn endpoints_that_come_before_their_service_wait_for_it() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1"))]);
    assert_eq!(state.dump().staged_services.len(), 1);

    apply(&state, [Address::Service(service("svc", "ns", "10.96.0.1"))]);

    assert!(state.dump().staged_services.is_empty());
    assert_eq!(endpoints(&state, "svc.ns.svc.cluster.local"), ["Kubernetes//Pod/ns/a"]);
    remove(&state, "Kubernetes//Pod/ns/a");
    assert!(endpoints(&state, "svc.ns.svc.cluster.local").is_empty());
}

#[test]
fn a_service_that_is_removed_and_comes_back_has_its_endpoints() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1")), Address::Service(service("svc", "ns", "10.96.0.1"))]);
    remove(&state, "ns/svc.ns.svc.cluster.local");
    assert_eq!(at(&state, "10.96.0.1", "ns"), None);

    apply(&state, [Address::Service(service("svc", "ns", "10.96.0.1"))]);

    assert_eq!(endpoints(&state, "svc.ns.svc.cluster.local").len(), 1);
}

#[test]
fn unhealthy_endpoints_count_only_where_all_are_allowed_also_when_that_changes_later() {
    let state = state();
    let sick = Workload { status: crate::HealthStatus::Unhealthy, ..workload("a", "10.0.0.1") };
    let all = LoadBalancer { health_policy: HealthPolicy::AllowAll, ..LoadBalancer::default() };
    let lenient = Service { load_balancer: Some(all), ..service("svc", "ns", "10.96.0.1") };

    apply(&state, [Address::Workload(sick), Address::Service(service("svc", "ns", "10.96.0.1"))]);
    assert!(endpoints(&state, "svc.ns.svc.cluster.local").is_empty());
    apply(&state, [Address::Service(lenient)]);

    assert_eq!(endpoints(&state, "svc.ns.svc.cluster.local").len(), 1);
}

#[test]
fn two_services_of_a_namespace_may_share_an_address() {
    let state = state();
    apply(
        &state,
        [Address::Service(service("one", "ns", "10.96.0.1")), Address::Service(service("two", "ns", "10.96.0.1"))],
    );
    assert_eq!(at(&state, "10.96.0.1", "ns").as_deref(), Some("one"));

    remove(&state, "ns/one.ns.svc.cluster.local");

    assert_eq!(at(&state, "10.96.0.1", "ns").as_deref(), Some("two"));
}

#[test]
fn an_address_that_a_service_loses_no_longer_leads_to_it() {
    let state = state();
    apply(&state, [Address::Service(service("one", "ns", "10.96.0.1"))]);
    apply(&state, [Address::Service(service("one", "ns", "10.96.0.2"))]);

    assert_eq!(at(&state, "10.96.0.1", "ns"), None);
    assert_eq!(at(&state, "10.96.0.2", "ns").as_deref(), Some("one"));
}

#[test]
fn of_services_with_one_address_the_client_s_namespace_then_the_canonical_then_the_oldest_is_meant() {
    let state = state();
    let canonical = Service { canonical: true, ..service("canonical", "b", "10.96.0.1") };
    apply(
        &state,
        [
            Address::Service(service("oldest", "a", "10.96.0.1")),
            Address::Service(canonical),
            Address::Service(service("own", "c", "10.96.0.1")),
        ],
    );

    assert_eq!(at(&state, "10.96.0.1", "c").as_deref(), Some("own"));
    assert_eq!(at(&state, "10.96.0.1", "other").as_deref(), Some("canonical"));
    remove(&state, "b/canonical.b.svc.cluster.local");
    assert_eq!(at(&state, "10.96.0.1", "other").as_deref(), Some("oldest"));
}

#[test]
fn a_private_service_is_seen_from_its_own_namespace_only() {
    let state = state();
    let private = Service { visibility: Visibility::Namespace, ..service("private", "a", "10.96.0.1") };
    let block = Service { cidr_vips: vec!["/10.96.0.0/16".parse().unwrap()], ..service("block", "b", "10.1.1.1") };
    apply(&state, [Address::Service(private), Address::Service(block)]);

    assert_eq!(at(&state, "10.96.0.1", "a").as_deref(), Some("private"));
    assert_eq!(at(&state, "10.96.0.1", "c").as_deref(), Some("block"));
    let read = state.read();
    assert!(read.index.service_by_hostname("private.a.svc.cluster.local", "a").is_some());
    assert!(read.index.service_by_hostname("private.a.svc.cluster.local", "c").is_none());
}

#[test]
fn an_exact_address_wins_over_a_block_and_a_longer_block_over_a_shorter() {
    let state = state();
    let block = |name: &str, namespace: &str, cidr: &str| Service {
        vips: vec![],
        cidr_vips: vec![cidr.parse().unwrap()],
        ..service(name, namespace, "10.9.9.9")
    };
    apply(
        &state,
        [
            Address::Service(block("wide", "a", "/10.96.0.0/16")),
            Address::Service(block("narrow", "a", "/10.96.1.0/24")),
            Address::Service(block("six", "a", "/fd00::/64")),
            Address::Service(block("elsewhere", "a", "net-2/10.97.0.0/16")),
            Address::Service(service("exact", "a", "10.96.1.1")),
        ],
    );

    assert_eq!(at(&state, "10.96.1.1", "x").as_deref(), Some("exact"));
    assert_eq!(at(&state, "10.96.1.2", "x").as_deref(), Some("narrow"));
    assert_eq!(at(&state, "10.96.2.2", "x").as_deref(), Some("wide"));
    assert_eq!(at(&state, "fd00::9", "x").as_deref(), Some("six"));
    assert_eq!(at(&state, "10.97.0.1", "x"), None);
}

#[test]
fn a_block_is_indexed_anew_with_every_update_of_its_service() {
    let state = state();
    let block = |cidr: &str, canonical| Service {
        vips: vec![],
        cidr_vips: vec![cidr.parse().unwrap()],
        canonical,
        ..service("block", "a", "10.9.9.9")
    };
    apply(&state, [Address::Service(block("/10.96.0.0/16", false))]);
    apply(&state, [Address::Service(block("/10.96.0.0/16", true))]);

    let found = state.read().index.service_by_address(&NET.into(), "10.96.0.1".parse().unwrap(), "a").unwrap();
    assert!(found.canonical);
    apply(&state, [Address::Service(block("/10.97.0.0/16", true))]);
    assert_eq!(at(&state, "10.96.0.1", "a"), None);
    remove(&state, "a/block.a.svc.cluster.local");
    assert_eq!(at(&state, "10.97.0.1", "a"), None);
}

#[test]
fn addresses_belong_to_their_network() {
    let state = state();
    let elsewhere = Service {
        vips: vec![NetworkAddress::new("net-2".into(), "10.96.0.1".parse().unwrap())],
        ..service("s", "a", "1.1.1.1")
    };
    apply(&state, [Address::Service(elsewhere)]);

    assert_eq!(at(&state, "10.96.0.1", "a"), None);
}

#[test]
fn an_update_tells_which_certificates_are_wanted_and_which_are_not_any_more() {
    let state = state();
    let plain = Workload { protocol: InboundProtocol::TCP, ..workload("plain", "10.0.0.3") };
    let there = Workload { node: "node-2".into(), ..workload("there", "10.0.0.4") };
    let applied = apply(
        &state,
        [
            Address::Workload(workload("a", "10.0.0.1")),
            Address::Workload(workload("b", "10.0.0.2")),
            Address::Workload(plain),
            Address::Workload(there),
        ],
    );
    let identity: Identity = "spiffe://cluster.local/ns/ns/sa/sa".parse().unwrap();
    assert_eq!(applied.wanted, [identity.clone(), identity.clone()]);

    remove(&state, "Kubernetes//Pod/ns/plain");
    assert_eq!(remove(&state, "Kubernetes//Pod/ns/a").unused, []);
    assert_eq!(remove(&state, "Kubernetes//Pod/ns/there").unused, []);
    assert_eq!(remove(&state, "Kubernetes//Pod/ns/b").unused, [identity]);
}

#[test]
fn a_workload_that_changes_its_account_leaves_the_old_identity_unused() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1"))]);

    let applied =
        apply(&state, [Address::Workload(Workload { service_account: "new".into(), ..workload("a", "10.0.0.1") })]);

    assert_eq!(applied.unused, ["spiffe://cluster.local/ns/ns/sa/sa".parse().unwrap()]);
}

#[test]
fn policies_apply_by_namespace_everywhere_and_by_name() {
    let state = state();
    let policy = |name: &str, namespace: &str, scope| {
        Change::Upsert(Authorization {
            name: name.into(),
            namespace: namespace.into(),
            scope,
            action: Action::Deny,
            rules: vec![],
            dry_run: false,
        })
    };
    state.apply_authorizations(vec![
        policy("everywhere", "root", Scope::Global),
        policy("here", "ns", Scope::Namespace),
        policy("elsewhere", "other", Scope::Namespace),
        policy("named", "ns", Scope::WorkloadSelector),
        policy("not-named", "ns", Scope::WorkloadSelector),
    ]);
    let named = vec!["ns/named".into(), "ns/gone".into(), "ns/here".into()];
    let workload = Workload { authorization_policies: named, ..workload("a", "10.0.0.1") };
    let names = || state.policies_of(&workload).policies.iter().map(|p| p.to_string()).collect::<Vec<_>>();

    assert_eq!(names(), ["root/everywhere", "ns/here", "ns/named"]);
    assert_eq!(state.policies_of(&workload).unknown, ["ns/gone"]);
    assert!(!state.policies_of(&workload).synced);

    state.apply_authorizations(vec![
        policy("here", "ns", Scope::WorkloadSelector),
        Change::Remove("root/everywhere".into()),
    ]);
    assert_eq!(names(), ["ns/named", "ns/here"]);
}

#[test]
fn a_change_of_the_policies_of_a_local_workload_is_told() {
    let state = state();
    let named = |node: &str, policies: &[&str]| {
        let authorization_policies = policies.iter().map(|p| (*p).into()).collect();
        Address::Workload(Workload { authorization_policies, node: node.into(), ..workload("a", "10.0.0.1") })
    };

    assert!(!apply(&state, [named("node-1", &[])]).policies_changed);
    assert!(apply(&state, [named("node-1", &["ns/p"])]).policies_changed);
    assert!(!apply(&state, [named("node-1", &["ns/p"])]).policies_changed);
    apply(&state, [named("node-2", &[])]);
    assert!(!apply(&state, [named("node-2", &["ns/p"])]).policies_changed);
}

#[tokio::test(start_paused = true)]
async fn a_local_workload_that_is_there_is_found_at_once() {
    let state = state();
    apply(&state, [Address::Workload(workload("a", "10.0.0.1"))]);

    assert!(state.wait_for_local("ns", "a", "sa", Duration::ZERO).await.is_some());
    assert!(state.wait_for_local("ns", "a", "other", Duration::ZERO).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_local_workload_that_arrives_in_time_is_found() {
    let state = state();
    let other = state.clone();

    let (found, ()) = tokio::join!(state.wait_for_local("ns", "a", "sa", LOCAL_WORKLOAD_WAIT), async move {
        tokio::task::yield_now().await;
        apply(&other, [Address::Workload(workload("a", "10.0.0.1"))]);
    });

    assert!(found.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_local_workload_that_never_arrives_is_given_up_after_the_wait() {
    let state = state();
    let begin = tokio::time::Instant::now();
    apply(&state, [Address::Workload(Workload { node: "node-2".into(), ..workload("a", "10.0.0.1") })]);

    assert!(state.wait_for_local("ns", "a", "sa", LOCAL_WORKLOAD_WAIT).await.is_none());
    assert_eq!(begin.elapsed(), LOCAL_WORKLOAD_WAIT);
}
