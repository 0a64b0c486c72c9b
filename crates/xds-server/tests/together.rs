//! Our client and our server, and what becomes of them when the server is replaced.

mod common;

use common::{Seen, client, policy, remove, run, serve, serve_on, soon, upsert};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use tls::control_plane::Token;
use xds_client::Interest;
use xds_server::{Cache, Report};

#[tokio::test]
async fn what_the_cache_holds_arrives_policies_first() {
    let cache = Cache::new();
    cache.apply(ADDRESS, vec![upsert("a", "1"), upsert("b", "1")]);
    cache.apply(POLICY, vec![policy("policy", "1")]);
    cache.mark_synced();
    let served = serve(cache, true).await;
    let seen = Seen::new();

    let (_trigger, mut synced) = run(client(served.address.port(), Token::None, &seen, Interest::All));
    soon(synced.wait_for(|synced| *synced)).await.unwrap();

    assert_eq!(seen.state().order, ["policy", "a", "b"]);
    served.cache.apply(ADDRESS, vec![upsert("a", "2"), remove("b")]);
    seen.holds(&[("policy", "1"), ("a", "2")]).await;
}

#[tokio::test]
async fn an_empty_mesh_makes_a_client_synced() {
    let cache = Cache::new();
    cache.mark_synced();
    let served = serve(cache, true).await;

    let (_trigger, mut synced) = run(client(served.address.port(), Token::None, &Seen::new(), Interest::All));

    soon(synced.wait_for(|synced| *synced)).await.unwrap();
}

#[tokio::test]
async fn refusals_are_reported_with_the_callers_name_and_the_rest_arrives() {
    let cache = Cache::new();
    cache.apply(ADDRESS, vec![upsert("a", "1"), upsert("bad", "1")]);
    cache.mark_synced();
    let mut served = serve(cache, true).await;
    let seen = Seen::new();
    let _running = run(client(served.address.port(), Token::None, &seen, Interest::All));

    let refusal = loop {
        match soon(served.reports.recv()).await.unwrap() {
            Report::Nacked { peer, type_url, error, .. } => break (peer.caller, type_url, error),
            Report::Connected { .. }
            | Report::Holds { .. }
            | Report::Sent { .. }
            | Report::Acked { .. }
            | Report::Disconnected { .. } => {}
        }
    };

    assert_eq!(refusal, (common::caller(), ADDRESS.to_owned(), "bad: is bad".to_owned()));
    seen.holds(&[("a", "1")]).await;
}

#[tokio::test]
async fn a_replaced_server_tells_only_what_has_changed() {
    let first = tokio::runtime::Runtime::new().unwrap();
    let cache = Cache::new();
    cache.apply(ADDRESS, vec![upsert("same", "1"), upsert("changed", "1"), upsert("gone", "1")]);
    cache.mark_synced();
    let served = first.spawn(serve(cache, true)).await.unwrap();
    let seen = Seen::new();
    let _running = run(client(served.address.port(), Token::None, &seen, Interest::All));
    seen.holds(&[("same", "1"), ("changed", "1"), ("gone", "1")]).await;
    first.shutdown_background();
    soon(released(served.address)).await;

    let cache = Cache::new();
    cache.apply(ADDRESS, vec![upsert("same", "1"), upsert("changed", "2"), upsert("new", "1")]);
    let listener = tokio::net::TcpListener::bind(served.address).await.unwrap();
    let served = serve_on(listener, cache, true);
    seen.holds(&[("same", "1"), ("changed", "1"), ("gone", "1")]).await;
    served.cache.mark_synced();
    seen.holds(&[("same", "1"), ("changed", "2"), ("new", "1")]).await;

    let order = seen.state().order;
    assert_eq!(order.iter().filter(|name| *name == "same").count(), 1, "{order:?}");
}

/// Waits until nothing listens at the address any more.
async fn released(address: std::net::SocketAddr) {
    while std::net::TcpStream::connect(address).is_ok() {
        tokio::task::yield_now().await;
    }
}
