//! Our server, asked by a client that the test plays itself.

mod common;

use bytes::Bytes;
use common::{ask, caller, holding, names, raw, remove, serve, soon, upsert};
use proto::Change;
use proto::discovery::{DeltaDiscoveryRequest, Node, Status};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use std::time::Duration;
use tonic::Code;
use xds_server::{Cache, Report};

fn cache(names: &[(&str, &str)]) -> Cache {
    let cache = Cache::new();
    cache.apply(ADDRESS, names.iter().map(|(name, version)| upsert(name, version)).collect());
    cache.mark_synced();
    cache
}

/// A stream that has asked for policies, so that addresses come without delay.
async fn stream(served: &common::Served) -> common::Raw {
    let mut raw = raw(served.address).await.unwrap();
    raw.send(ask(POLICY)).await;
    raw.ack(POLICY).await;
    raw
}

#[tokio::test]
async fn a_client_that_holds_nothing_gets_everything() {
    let served = serve(cache(&[("a", "1"), ("b", "1")]), true).await;
    let mut raw = stream(&served).await;

    raw.send(ask(ADDRESS)).await;

    let heard = raw.hear().await;
    assert_eq!(heard.resources, ["a@1", "b@1"]);
    assert!(heard.removed.is_empty() && !heard.nonce.is_empty());
}

#[tokio::test]
async fn a_client_that_comes_back_gets_differences_and_removals() {
    let served = serve(cache(&[("same", "1"), ("newer", "2"), ("new", "1")]), true).await;
    let mut raw = stream(&served).await;

    raw.send(holding(ADDRESS, &[("same", "1"), ("newer", "1"), ("gone", "7")])).await;

    let heard = raw.hear().await;
    assert_eq!(heard.resources, ["new@1", "newer@2"]);
    assert_eq!(heard.removed, ["gone"]);
}

#[tokio::test]
async fn a_type_without_resources_is_answered_all_the_same() {
    let served = serve(cache(&[]), true).await;
    let mut raw = stream(&served).await;

    raw.send(ask("type.googleapis.com/unheard.Of")).await;

    let heard = raw.hear().await;
    assert_eq!(heard.type_url, "type.googleapis.com/unheard.Of");
    assert!(heard.resources.is_empty() && heard.removed.is_empty());
}

#[tokio::test]
async fn changes_and_removals_follow_and_equal_versions_do_not() {
    let served = serve(cache(&[("a", "1"), ("b", "1")]), true).await;
    let mut raw = stream(&served).await;
    raw.send(ask(ADDRESS)).await;
    raw.hear().await;

    served.cache.apply(ADDRESS, vec![upsert("a", "1"), remove("unknown")]);
    served.cache.apply(ADDRESS, vec![upsert("c", "1"), remove("b")]);

    let heard = raw.hear().await;
    assert_eq!((heard.resources, heard.removed), (names(&["c@1"]), names(&["b"])));
}

#[tokio::test]
async fn nothing_is_sent_before_the_cache_is_in_sync() {
    let served = serve(Cache::new(), true).await;
    let mut raw = raw(served.address).await.unwrap();
    raw.send(holding(POLICY, &[("kept", "1")])).await;

    // An early answer would be the removal of what the client holds.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    served.cache.apply(POLICY, vec![upsert("kept", "1"), upsert("more", "1")]);
    served.cache.mark_synced();

    let heard = raw.hear().await;
    assert_eq!((heard.resources, heard.removed), (names(&["more@1"]), names(&[])));
}

#[tokio::test]
async fn policies_come_before_addresses_whatever_is_asked_first() {
    let served = serve(cache(&[("a", "1")]), true).await;
    served.cache.apply(POLICY, vec![upsert("p", "1")]);
    let mut raw = raw(served.address).await.unwrap();

    raw.send(ask(ADDRESS)).await;
    raw.send(ask(POLICY)).await;

    assert_eq!(raw.ack(POLICY).await.resources, ["p@1"]);
    assert_eq!(raw.hear().await.resources, ["a@1"]);
}

#[tokio::test]
async fn a_client_that_never_asks_for_policies_gets_addresses_too() {
    let served = serve(cache(&[("a", "1")]), true).await;
    let mut raw = raw(served.address).await.unwrap();

    raw.send(ask(ADDRESS)).await;

    assert_eq!(raw.hear().await.resources, ["a@1"]);
}

#[tokio::test]
async fn named_subscriptions_get_their_names_only() {
    let served = serve(cache(&[("a", "1"), ("b", "1"), ("c", "1")]), true).await;
    let mut raw = stream(&served).await;

    raw.send(DeltaDiscoveryRequest { resource_names_subscribe: names(&["a", "nobody"]), ..ask(ADDRESS) }).await;
    let heard = raw.hear().await;
    assert_eq!((heard.resources, heard.removed), (names(&["a@1"]), names(&["nobody"])));

    let change = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["b"]),
        resource_names_unsubscribe: names(&["a"]),
        ..ask(ADDRESS)
    };
    raw.send(change).await;
    assert_eq!(raw.hear().await.resources, ["b@1"]);

    served.cache.apply(ADDRESS, vec![upsert("a", "2"), upsert("b", "2"), upsert("c", "2"), upsert("nobody", "1")]);
    assert_eq!(raw.hear().await.resources, ["b@2", "nobody@1"]);
}

#[tokio::test]
async fn star_and_not_star_together_mean_names_only() {
    let served = serve(cache(&[("a", "1"), ("b", "1")]), true).await;
    let mut raw = stream(&served).await;
    let on_demand = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["*", "b"]),
        resource_names_unsubscribe: names(&["*"]),
        ..holding(ADDRESS, &[("b", "")])
    };

    raw.send(on_demand).await;

    assert_eq!(raw.hear().await.resources, ["b@1"]);
}

#[tokio::test]
async fn big_answers_come_in_pieces() {
    let served = serve(cache(&[]), true).await;
    let value = Bytes::from(vec![7; 100_000]);
    let change = |n: usize| Change::Upsert { name: format!("n{n:03}"), version: "1".to_owned(), value: value.clone() };
    served.cache.apply(ADDRESS, (0..40).map(change).collect());
    let mut raw = stream(&served).await;

    let node = Some(Node { client_features: names(&["dev.strake.xds.snapshot-parts"]), ..Node::default() });
    raw.send(DeltaDiscoveryRequest { node, ..ask(ADDRESS) }).await;

    let mut all = Vec::new();
    while all.len() < 40 {
        let heard = raw.hear().await;
        assert!(heard.bytes < 1_300_000, "{}", heard.bytes);
        all.extend(heard.resources);
    }
    assert_eq!(all, (0..40).map(|n| format!("n{n:03}@1")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_client_gets_the_newest_state_and_not_every_step() {
    const ROUNDS: usize = 500;
    let served = serve(cache(&[]), true).await;
    let mut raw = stream(&served).await;
    raw.send(ask(ADDRESS)).await;
    raw.hear().await;
    let value = Bytes::from(vec![7; 100_000]);

    for round in 0..ROUNDS {
        let (name, version) = (format!("n{}", round % 10), round.to_string());
        served.cache.apply(ADDRESS, vec![Change::Upsert { name, version, value: value.clone() }]);
        tokio::task::yield_now().await;
    }

    let last: std::collections::BTreeSet<String> =
        (ROUNDS - 10..ROUNDS).map(|round| format!("n{}@{round}", round % 10)).collect();
    let (mut missing, mut received) = (last, 0);
    while !missing.is_empty() {
        for resource in raw.hear().await.resources {
            missing.remove(&resource);
            received += 1;
        }
    }
    assert!(received < ROUNDS / 2, "{received} of {ROUNDS} steps were sent");
}

#[tokio::test]
async fn the_control_plane_learns_who_took_what_and_who_refused() {
    let mut served = serve(cache(&[("a", "1")]), true).await;
    let mut raw = raw(served.address).await.unwrap();
    let node = Some(Node { id: "ztunnel~10.0.0.7~z.istio-system~x".to_owned(), ..Node::default() });
    raw.send(DeltaDiscoveryRequest { node, ..ask(POLICY) }).await;
    let nonce = raw.hear().await.nonce;

    raw.send(DeltaDiscoveryRequest { response_nonce: nonce.clone(), ..ask(POLICY) }).await;
    raw.send(ask(ADDRESS)).await;
    let second = raw.hear().await.nonce;
    let error_detail = Some(Status { message: "a: is bad".to_owned(), ..Status::default() });
    raw.send(DeltaDiscoveryRequest { response_nonce: second.clone(), error_detail, ..ask(ADDRESS) }).await;

    let Some(Report::Connected { peer }) = soon(served.reports.recv()).await else { panic!() };
    assert_eq!((peer.caller.clone(), peer.node_id.as_str()), (caller(), "ztunnel~10.0.0.7~z.istio-system~x"));
    let sent = |type_url: &str, nonce: &str, resources| Report::Sent {
        peer: peer.clone(),
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed: Vec::new(),
    };
    assert_eq!(soon(served.reports.recv()).await, Some(sent(POLICY, &nonce, Vec::new())));
    let acked = Report::Acked { peer: peer.clone(), type_url: POLICY.to_owned(), nonce };
    assert_eq!(soon(served.reports.recv()).await, Some(acked));
    assert_eq!(soon(served.reports.recv()).await, Some(sent(ADDRESS, &second, vec![("a".into(), "1".into())])));
    let error = "a: is bad".to_owned();
    let nacked = Report::Nacked { peer: peer.clone(), type_url: ADDRESS.to_owned(), nonce: second, error };
    assert_eq!(soon(served.reports.recv()).await, Some(nacked));
    assert_eq!(served.cache.connections(), 1);
    drop(raw);
    assert_eq!(soon(served.reports.recv()).await, Some(Report::Disconnected { peer }));
    assert_eq!(served.cache.connections(), 0);
}

#[tokio::test]
async fn the_control_plane_learns_what_a_client_holds_of_an_earlier_connection() {
    let mut served = serve(cache(&[("a", "2"), ("b", "1"), ("c", "1")]), true).await;
    let raw = raw(served.address).await.unwrap();

    raw.send(holding(ADDRESS, &[("a", "1"), ("b", "1"), ("c", ""), ("gone", "1")])).await;

    let Some(Report::Connected { peer }) = soon(served.reports.recv()).await else { panic!() };
    let type_url = ADDRESS.to_owned();
    let holds =
        Report::Holds { peer: peer.clone(), type_url: type_url.clone(), resources: vec![("b".into(), "1".into())] };
    assert_eq!(soon(served.reports.recv()).await, Some(holds));
    let resources = vec![("a".into(), "2".into()), ("c".into(), "1".into())];
    let sent = Report::Sent { peer, type_url, nonce: "1".to_owned(), resources, removed: vec!["gone".into()] };
    assert_eq!(soon(served.reports.recv()).await, Some(sent));
}

#[tokio::test]
async fn a_refused_resource_is_not_sent_again_by_itself() {
    let served = serve(cache(&[("a", "1")]), true).await;
    let mut raw = stream(&served).await;
    raw.send(ask(ADDRESS)).await;
    let response_nonce = raw.hear().await.nonce;
    let error_detail = Some(Status { message: "a: is bad".to_owned(), ..Status::default() });

    raw.send(DeltaDiscoveryRequest { response_nonce, error_detail, ..ask(ADDRESS) }).await;
    served.cache.apply(ADDRESS, vec![upsert("b", "1")]);

    assert_eq!(raw.hear().await.resources, ["b@1"]);
}

#[tokio::test]
async fn a_caller_without_name_is_refused() {
    let served = serve(cache(&[]), false).await;

    let status = raw(served.address).await.err().unwrap();

    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_request_without_type_ends_the_stream() {
    let served = serve(cache(&[]), true).await;
    let mut raw = stream(&served).await;

    raw.send(ask("")).await;

    assert_eq!(raw.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_drain_ends_streams_in_good_order_and_takes_no_new_ones() {
    let served = serve(cache(&[]), true).await;
    let mut raw = stream(&served).await;

    served.drain.start(Duration::from_secs(1));

    assert_eq!(raw.next().await.unwrap(), None);
    let again = common::raw(served.address).await.err().unwrap();
    assert_eq!(again.code(), Code::Unavailable);
}
