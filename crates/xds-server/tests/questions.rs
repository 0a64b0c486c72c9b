//! Clients that get everything, and ask about one address besides: a connection waits for the answer.

mod common;

use common::{Raw, ask, names, raw, remove, serve, soon};
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use proto::snapshot::{FEATURE, Mark};
use proto::workload::address::Type;
use proto::workload::{Address, NetworkMode, Workload};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY, Change};
use xds_server::Cache;

fn pod(number: u16, version: &str) -> Change {
    let [high, low] = number.to_be_bytes();
    workload(&name(number), version, Workload { addresses: vec![vec![10, 0, high, low]], ..Workload::default() })
}

fn name(number: u16) -> String {
    format!("pod-{number:05}")
}

fn workload(name: &str, version: &str, workload: Workload) -> Change {
    let address = Address { r#type: Some(Type::Workload(Workload { uid: name.to_owned(), ..workload })) };
    Change::Upsert { name: name.to_owned(), version: version.to_owned(), value: address.encode_to_vec().into() }
}

fn question(name: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { resource_names_subscribe: names(&[name]), ..ask(ADDRESS) }
}

/// Hears a response with addresses, and accepts it.
async fn next(raw: &mut Raw) -> DeltaDiscoveryResponse {
    let response = soon(raw.responses.message()).await.unwrap().unwrap();
    assert_eq!(response.type_url, ADDRESS);
    raw.send(DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..ask(ADDRESS) }).await;
    response
}

fn found(response: &DeltaDiscoveryResponse) -> Vec<(&str, &[String])> {
    response.resources.iter().map(|resource| (resource.name.as_str(), resource.aliases.as_slice())).collect()
}

/// A client that has all of two pods.
async fn client_of(cache: &Cache) -> Raw {
    cache.apply(ADDRESS, vec![pod(1, "1"), pod(2, "1")]);
    cache.mark_synced();
    let served = serve(cache.clone(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;
    raw.send(ask(ADDRESS)).await;
    assert_eq!(next(&mut raw).await.resources.len(), 2);
    raw
}

#[tokio::test]
async fn an_address_is_answered_with_what_has_it_now_and_says_by_which_address_it_was_found() {
    let cache = Cache::new();
    let mut raw = client_of(&cache).await;

    raw.send(question("/10.0.0.2")).await;

    let answer = next(&mut raw).await;
    assert_eq!(found(&answer), [("pod-00002", names(&["/10.0.0.2"]).as_slice())]);
    assert!(answer.removed_resources.is_empty(), "{:?}", answer.removed_resources);
}

#[tokio::test]
async fn an_address_that_nobody_has_is_answered_as_removed_and_nothing_else_is() {
    let cache = Cache::new();
    let mut raw = client_of(&cache).await;
    let host = Workload {
        addresses: vec![vec![10, 0, 0, 9]],
        network_mode: NetworkMode::HostNetwork.into(),
        ..Workload::default()
    };
    cache.apply(ADDRESS, vec![workload("host", "1", host)]);
    next(&mut raw).await;

    for unknown in ["/10.0.0.9", "/192.0.2.1", "net/10.0.0.1"] {
        raw.send(question(unknown)).await;

        let answer = next(&mut raw).await;
        assert_eq!((answer.resources.len(), answer.removed_resources), (0, names(&[unknown])));
    }
}

#[tokio::test]
async fn a_question_that_is_repeated_is_answered_again_also_when_the_client_lets_the_name_go() {
    let cache = Cache::new();
    let mut raw = client_of(&cache).await;

    for _ in 0..2 {
        raw.send(DeltaDiscoveryRequest { resource_names_unsubscribe: names(&["/10.0.0.1"]), ..question("/10.0.0.1") })
            .await;
        assert_eq!(found(&next(&mut raw).await)[0].0, "pod-00001");
    }
}

#[tokio::test]
async fn a_pod_that_goes_and_comes_back_is_answered_as_it_is_now() {
    let cache = Cache::new();
    let mut raw = client_of(&cache).await;

    cache.apply(ADDRESS, vec![remove("pod-00001")]);
    raw.send(question("/10.0.0.1")).await;
    let mut removed = next(&mut raw).await.removed_resources;
    if removed.len() == 1 {
        // The removal went out before the question came in.
        removed.extend(next(&mut raw).await.removed_resources);
    }
    removed.sort();
    assert_eq!(removed, names(&["/10.0.0.1", "pod-00001"]));

    cache.apply(ADDRESS, vec![pod(1, "2")]);
    next(&mut raw).await;
    raw.send(question("/10.0.0.1")).await;
    let answer = next(&mut raw).await;
    assert_eq!((answer.resources[0].name.as_str(), answer.resources[0].version.as_str()), ("pod-00001", "2"));
}

#[tokio::test]
async fn a_change_beside_a_question_arrives_whichever_comes_first_and_later_ones_are_no_answers() {
    let cache = Cache::new();
    let mut raw = client_of(&cache).await;

    raw.send(question("/10.0.0.3")).await;
    cache.apply(ADDRESS, vec![pod(3, "1")]);
    // The change is pushed before the question is read, after its answer, or is the answer.
    let (mut is_known, mut is_answered) = (false, false);
    while !(is_known && is_answered) {
        let response = next(&mut raw).await;
        is_known |= found(&response).iter().any(|(name, _)| *name == "pod-00003");
        is_answered |= found(&response) == [("pod-00003", names(&["/10.0.0.3"]).as_slice())]
            || response.removed_resources == names(&["/10.0.0.3"]);
    }

    cache.apply(ADDRESS, vec![pod(4, "1")]);
    let after = next(&mut raw).await;
    assert_eq!(found(&after), [("pod-00004", [].as_slice())], "what is pushed has no aliases");
}

#[tokio::test]
async fn a_question_is_answered_before_the_rest_of_a_snapshot_and_its_marks_stay_whole() {
    let cache = Cache::new();
    // Four parts. The client reads one at a time, so the server is never far ahead.
    cache.apply(ADDRESS, (0..65_000).map(|number| pod(number, "1")).collect());
    cache.mark_synced();
    let served = serve(cache.clone(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    let node = Some(Node { client_features: names(&[FEATURE]), ..Node::default() });
    raw.send(DeltaDiscoveryRequest { node: node.clone(), ..ask(POLICY) }).await;
    raw.ack(POLICY).await;

    // Both are in the stream before the server has answered the first: the address is that of the last pod.
    raw.send(DeltaDiscoveryRequest { node, ..ask(ADDRESS) }).await;
    raw.send(question("/10.0.253.231")).await;

    let (mut parts, mut seen, mut answered_in) = (0, 0, None);
    loop {
        let response = next(&mut raw).await;
        let mark: Mark = response.system_version_info.parse().expect("a part of the snapshot");
        parts += 1;
        assert_eq!(mark.part, parts);
        seen += response.resources.len();
        if response.resources.iter().any(|one| one.name == name(64_999) && !one.aliases.is_empty()) {
            answered_in.get_or_insert(parts);
        }
        if mark.is_last {
            break;
        }
    }
    assert!(parts == 4 && seen == 65_000, "{parts} parts, {seen} resources");
    assert!(answered_in.is_some_and(|part| part < parts), "answered in part {answered_in:?} of {parts}");
}

#[tokio::test]
async fn a_question_in_the_first_request_brings_everything_and_the_answer_once() {
    let cache = Cache::new();
    cache.apply(ADDRESS, vec![pod(1, "1"), pod(2, "1")]);
    cache.mark_synced();
    let served = serve(cache.clone(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;

    raw.send(DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["*", "/10.0.0.2", "/192.0.2.1"]),
        ..ask(ADDRESS)
    })
    .await;

    let answer = next(&mut raw).await;
    assert_eq!(found(&answer), [("pod-00002", names(&["/10.0.0.2"]).as_slice()), ("pod-00001", [].as_slice())]);
    assert_eq!(answer.removed_resources, names(&["/192.0.2.1"]));
}
