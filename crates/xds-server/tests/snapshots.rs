//! The end of a snapshot, and the order of policies and addresses, while messages are late, repeated, split, reordered
//! and cut between our server and our client.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Seen, Served, ask, client, holding, policy, raw, remove, run, serve, soon, upsert};
use proto::Change;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use tls::control_plane::{RootSource, Token};
use tokio::sync::watch;
use xds_client::Interest;
use xds_server::Cache;
use xds_server::testing::{Faults, LikeIstiod, Passed, Pieces, Relay, Twice};

/// Addresses of the large mesh: with 1 KiB each, three responses of our server.
const LARGE: usize = 3000;

fn name(number: usize) -> String {
    format!("w{number:05}")
}

fn large(version: &str) -> Vec<Change> {
    let value = Bytes::from(prost::Message::encode_to_vec(&common::workload(&"x".repeat(1000), "x")));
    let change = |number| Change::Upsert { name: name(number), version: version.to_owned(), value: value.clone() };
    (0..LARGE).map(change).collect()
}

async fn large_mesh() -> Served {
    let cache = Cache::new();
    cache.apply(ADDRESS, large("1"));
    cache.apply(POLICY, vec![policy("p", "1")]);
    cache.mark_synced();
    serve(cache, true).await
}

/// A client of `served` behind a relay with these faults.
async fn behind(served: &Served, faults: impl Faults) -> (Relay, Seen, Running) {
    let upstream = format!("http://{}", served.address).parse().unwrap();
    let relay = Relay::new(upstream, RootSource::System, faults);
    let address = relay.listen().await.unwrap();
    let seen = Seen::new();
    let running = run(client(address.port(), Token::None, &seen, Interest::All));
    (relay, seen, running)
}

type Running = (runtime::drain::Trigger, watch::Receiver<bool>);

/// Waits for the client to be in sync, and fails unless it has the whole mesh by then.
async fn is_whole(seen: &Seen, (_, synced): &mut Running) {
    soon(synced.wait_for(|synced| *synced)).await.unwrap();
    assert_eq!(seen.state().held.len(), LARGE + 1);
}

fn is_last(response: &DeltaDiscoveryResponse) -> bool {
    !response.system_version_info.ends_with("/more")
}

#[tokio::test]
async fn a_client_is_in_sync_only_with_the_last_part_of_a_large_mesh() {
    let served = large_mesh().await;
    let (open, late) = watch::channel(false);
    let (_relay, seen, mut running) = behind(&served, move |_, response: DeltaDiscoveryResponse| {
        let wait = (response.type_url == ADDRESS && is_last(&response)).then(|| Passed::Wait(late.clone()));
        wait.into_iter().chain([response.into()]).collect()
    })
    .await;

    // two parts of three
    soon(seen.reaches(|state| state.held.len() > LARGE / 2)).await;
    assert!(!*running.1.borrow(), "in sync with {} of {LARGE} addresses", seen.state().held.len());

    open.send_replace(true);
    is_whole(&seen, &mut running).await;
}

#[tokio::test]
async fn a_large_mesh_arrives_whole_though_parts_come_twice() {
    let served = large_mesh().await;

    let (_relay, seen, mut running) = behind(&served, Twice).await;

    is_whole(&seen, &mut running).await;
}

#[tokio::test]
async fn a_large_mesh_arrives_whole_from_a_server_that_knows_no_parts_and_sends_policies_last() {
    let served = large_mesh().await;

    let (_relay, seen, mut running) = behind(&served, LikeIstiod::default()).await;

    is_whole(&seen, &mut running).await;
    assert_eq!(seen.state().order.last().map(String::as_str), Some("p"));
}

#[tokio::test]
async fn a_large_mesh_arrives_whole_though_parts_are_split_further() {
    let served = large_mesh().await;

    let (_relay, seen, mut running) = behind(&served, Pieces::of(100)).await;

    is_whole(&seen, &mut running).await;
}

#[tokio::test]
async fn a_stream_that_breaks_between_two_parts_is_resumed_and_nothing_is_sent_twice() {
    let served = large_mesh().await;
    let mut cuts = 0;
    let (relay, seen, mut running) = behind(&served, move |_, response: DeltaDiscoveryResponse| {
        let cut = response.type_url == ADDRESS && !is_last(&response) && cuts < 2;
        cuts += usize::from(cut);
        let end = cut.then_some(Passed::Cut);
        std::iter::once(response.into()).chain(end).collect()
    })
    .await;

    is_whole(&seen, &mut running).await;

    assert_eq!(relay.streams(), 3);
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for name in seen.state().order {
        *times.entry(name).or_default() += 1;
    }
    times.retain(|name, times| name != "p" && *times > 1);
    assert!(times.is_empty(), "{times:?}");
}

#[tokio::test]
async fn a_client_that_misses_a_part_gives_the_stream_up() {
    let served = large_mesh().await;
    let (relay, seen, mut running) = behind(&served, |stream, response: DeltaDiscoveryResponse| {
        let is_lost = stream == 0 && response.type_url == ADDRESS && response.system_version_info.contains("/2/");
        if is_lost { Vec::new() } else { vec![response.into()] }
    })
    .await;

    is_whole(&seen, &mut running).await;

    assert_eq!(relay.streams(), 2);
}

#[tokio::test]
async fn a_mesh_that_changes_all_the_time_does_not_keep_a_snapshot_from_ending() {
    let served = large_mesh().await;
    let cache = served.cache.clone();
    let mut version = 1;
    let (_relay, seen, mut running) = behind(&served, move |_, response: DeltaDiscoveryResponse| {
        // everything changes with every response, also what the snapshot has sent already
        version += 1;
        cache.apply(ADDRESS, large(&version.to_string()));
        vec![response.into()]
    })
    .await;

    soon(running.1.wait_for(|synced| *synced)).await.unwrap();
    assert_eq!(seen.state().held.len(), LARGE + 1);
}

#[tokio::test]
async fn a_client_that_does_not_know_parts_gets_the_snapshot_in_one_response() {
    let served = large_mesh().await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;

    raw.send(ask(ADDRESS)).await;

    let heard = raw.hear().await;
    assert_eq!(heard.resources.len(), LARGE);
    assert_eq!(heard.version_info, "");
}

#[tokio::test]
async fn a_client_that_knows_parts_gets_parts_with_marks() {
    let served = large_mesh().await;
    let mut raw = raw(served.address).await.unwrap();
    let client_features = vec!["dev.strake.xds.snapshot-parts".to_owned()];
    let node = Some(Node { client_features, ..Node::default() });
    raw.send(DeltaDiscoveryRequest { node, ..ask(POLICY) }).await;
    raw.send(ask(ADDRESS)).await;

    let mut heard = Vec::new();
    heard.push(raw.ack(POLICY).await);
    for _ in 0..3 {
        heard.push(raw.hear().await);
    }

    let marks: Vec<_> = heard.iter().map(|heard| heard.version_info.as_str()).collect();
    let expected = ["1/end", "1/more", "2/more", "3/end"].map(|mark| format!("strake.snapshot/{mark}"));
    assert_eq!(marks, expected);
    assert_eq!(heard[1..].iter().map(|heard| heard.resources.len()).sum::<usize>(), LARGE);
    served.cache.apply(ADDRESS, vec![upsert("new", "1")]);
    assert_eq!(raw.hear().await.version_info, "", "a change is no part of a snapshot");
}

/// A stream of a client that has a workload and the policy that it refers to.
async fn with_policy(served: &Served) -> common::Raw {
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;
    raw.send(ask(ADDRESS)).await;
    raw.ack(ADDRESS).await;
    raw
}

fn small_mesh() -> Cache {
    let cache = Cache::new();
    cache.apply(POLICY, vec![policy("old", "1")]);
    cache.apply(ADDRESS, vec![upsert("w", "refers to old")]);
    cache.mark_synced();
    cache
}

#[tokio::test]
async fn a_policy_is_removed_after_the_client_has_answered_the_workload_that_no_longer_refers_to_it() {
    let served = serve(small_mesh(), true).await;
    let mut raw = with_policy(&served).await;

    // the removal is applied first: the order must not depend on it
    served.cache.apply(POLICY, vec![remove("old"), policy("new", "1")]);
    served.cache.apply(ADDRESS, vec![upsert("w", "refers to new")]);

    assert_eq!(raw.ack(POLICY).await.resources, ["new@1"]);
    let addresses = raw.hear().await;
    assert_eq!(addresses.resources, ["w@refers to new"]);
    // something else is sent meanwhile, which the removal must not overtake
    served.cache.apply(POLICY, vec![policy("other", "1")]);
    let other = raw.ack(POLICY).await;
    assert_eq!((other.resources, other.removed), (common::names(&["other@1"]), common::names(&[])));
    raw.answer(&addresses).await;
    assert_eq!(raw.hear().await.removed, ["old"]);
}

#[tokio::test]
async fn a_workload_is_sent_after_the_client_has_answered_the_policies_it_refers_to() {
    let served = serve(small_mesh(), true).await;
    let mut raw = with_policy(&served).await;

    served.cache.apply(POLICY, vec![policy("new", "1")]);
    served.cache.apply(ADDRESS, vec![upsert("w", "refers to new")]);
    let new = raw.hear().await;
    assert_eq!(new.resources, ["new@1"]);
    // a removal of an unknown name is answered, so what comes before it would have come
    let probe = DeltaDiscoveryRequest { resource_names_subscribe: common::names(&["probe"]), ..ask("other.Type") };
    raw.send(probe).await;
    assert_eq!(raw.hear().await.type_url, "other.Type");

    raw.answer(&new).await;
    assert_eq!(raw.hear().await.resources, ["w@refers to new"]);
}

#[tokio::test]
async fn a_policy_is_removed_after_all_parts_of_the_addresses() {
    let cache = small_mesh();
    cache.apply(ADDRESS, large("1"));
    let served = serve(cache, true).await;
    let mut raw = with_policy(&served).await;

    served.cache.apply(POLICY, vec![remove("old")]);
    served.cache.apply(ADDRESS, large("2"));

    let mut changed = 0;
    while changed < LARGE {
        let heard = raw.ack(ADDRESS).await;
        changed += heard.resources.len();
    }
    assert_eq!(raw.ack(POLICY).await.removed, ["old"]);
}

#[tokio::test]
async fn a_client_that_comes_back_loses_a_policy_after_its_workloads_have_changed() {
    let cache = Cache::new();
    cache.apply(ADDRESS, vec![upsert("w", "refers to none")]);
    cache.mark_synced();
    let served = serve(cache, true).await;
    let mut raw = raw(served.address).await.unwrap();

    raw.send(holding(POLICY, &[("old", "1")])).await;
    let first = raw.ack(POLICY).await;
    assert_eq!(first.removed, common::names(&[]), "the client has not asked for addresses yet");
    raw.send(holding(ADDRESS, &[("w", "refers to old")])).await;

    assert_eq!(raw.ack(ADDRESS).await.resources, ["w@refers to none"]);
    assert_eq!(raw.ack(POLICY).await.removed, ["old"]);
}

#[tokio::test]
async fn a_client_that_never_asks_for_addresses_hears_of_removals_all_the_same() {
    let served = serve(small_mesh(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;

    served.cache.apply(POLICY, vec![remove("old")]);

    assert_eq!(raw.ack(POLICY).await.removed, ["old"]);
}

#[tokio::test]
async fn a_policy_that_comes_back_before_its_removal_is_sent_is_not_removed() {
    let served = serve(small_mesh(), true).await;
    let mut raw = with_policy(&served).await;
    served.cache.apply(POLICY, vec![remove("old")]);
    served.cache.apply(ADDRESS, vec![upsert("w", "refers to none")]);
    let addresses = raw.hear().await;

    served.cache.apply(POLICY, vec![policy("old", "2")]);
    assert_eq!(raw.ack(POLICY).await.resources, ["old@2"]);
    raw.answer(&addresses).await;
    served.cache.apply(POLICY, vec![policy("last", "1")]);

    let heard = raw.ack(POLICY).await;
    assert_eq!((heard.resources, heard.removed), (common::names(&["last@1"]), common::names(&[])));
}
