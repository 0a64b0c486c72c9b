//! Our client, against a server that the test plays itself, nonsense included.

mod common;
mod talk;

use common::{Seen, client, names, run, soon};
use prost_types::Any;
use proto::discovery::{DeltaDiscoveryResponse, Resource};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use talk::{held, next, resource, response, serve};
use tls::control_plane::Token;
use tonic::Status;
use xds_client::{Client, Interest};

fn both(port: u16, seen: &Seen) -> Client {
    client(port, Token::Literal("secret".to_owned()), seen, Interest::All)
}

#[tokio::test]
async fn a_client_says_who_it_is_once_per_type_and_asks_for_everything() {
    let (mut talks, port) = serve().await;
    let _running = run(both(port, &Seen::new()));

    let mut talk = next(&mut talks).await;
    let (addresses, policies) = talk.greetings().await;

    assert_eq!(talk.headers["authorization"], "Bearer secret");
    assert_eq!(talk.headers["clusterid"], "Kubernetes");
    for request in [addresses, policies] {
        assert!(request.node.unwrap().id.starts_with("ztunnel~10.0.0.7~ztunnel-a.istio-system~"));
        assert!(request.resource_names_subscribe.is_empty() && request.initial_resource_versions.is_empty());
    }
    assert_eq!(talk.answer(response("n1", vec![resource("a", "1")])).await, None);
}

#[tokio::test]
async fn refused_resources_are_named_and_the_others_count() {
    let (mut talks, port) = serve().await;
    let seen = Seen::new();
    let _running = run(both(port, &seen));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    let garbage = Any { type_url: ADDRESS.to_owned(), value: vec![0xff; 9] };
    let other = Any { type_url: POLICY.to_owned(), value: Vec::new() };

    let refused = talk
        .answer(response(
            "n1",
            vec![
                resource("bad", "1"),
                resource("good", "1"),
                Resource { resource: Some(garbage), ..resource("garbage", "1") },
                Resource { resource: Some(other), ..resource("other", "1") },
                Resource { resource: None, ..resource("empty", "1") },
            ],
        ))
        .await
        .unwrap();

    seen.holds(&[("good", "1")]).await;
    assert!(refused.contains("bad: is bad"), "{refused}");
    assert!(refused.contains("empty: no contents") && refused.contains("garbage: "), "{refused}");
    assert!(refused.contains(&format!("other: unexpected type {POLICY:?} in a {ADDRESS} response")), "{refused}");
    assert!(!refused.contains("good"), "{refused}");
    assert_eq!(talk.answer(response("n2", vec![resource("next", "1")])).await, None);
}

#[tokio::test]
async fn a_new_stream_begins_with_the_versions_that_were_accepted() {
    let (mut talks, port) = serve().await;
    let seen = Seen::new();
    let _running = run(both(port, &seen));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    talk.answer(response("n1", vec![resource("a", "1"), resource("b", "1"), resource("bad-c", "1")])).await;
    talk.answer(response("n2", vec![resource("a", "2")])).await;
    let gone = DeltaDiscoveryResponse { removed_resources: names(&["b", "unknown"]), ..response("n3", vec![]) };
    talk.answer(gone).await;

    drop(talk);
    let (addresses, policies) = next(&mut talks).await.greetings().await;

    // A refused resource is named without a version: the server then tells when it is gone.
    assert_eq!(addresses.initial_resource_versions, held(&[("a", "2"), ("bad-c", "")]));
    assert!(policies.initial_resource_versions.is_empty());
    assert!(addresses.node.is_some());
    seen.holds(&[("a", "2")]).await;
}

#[tokio::test]
async fn a_refused_update_keeps_the_version_of_what_is_in_force() {
    let (mut talks, port) = serve().await;
    let _running = run(both(port, &Seen::new()));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    talk.answer(response("n1", vec![resource("a", "1")])).await;
    let garbage = Any { type_url: ADDRESS.to_owned(), value: vec![0xff; 9] };
    talk.answer(response("n2", vec![Resource { resource: Some(garbage), ..resource("a", "2") }])).await.unwrap();

    drop(talk);

    let (addresses, _) = next(&mut talks).await.greetings().await;
    assert_eq!(addresses.initial_resource_versions, held(&[("a", "1")]));
}

#[tokio::test]
async fn a_type_that_nobody_asked_for_is_accepted_and_ignored() {
    let (mut talks, port) = serve().await;
    let seen = Seen::new();
    let _running = run(both(port, &seen));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;

    let odd = DeltaDiscoveryResponse { type_url: "odd".to_owned(), ..response("n1", vec![resource("a", "1")]) };
    assert_eq!(talk.answer(odd).await, None);

    assert_eq!(talk.answer(response("n2", vec![resource("b", "1")])).await, None);
    seen.holds(&[("b", "1")]).await;
}

#[tokio::test]
async fn a_client_is_synced_once_every_type_was_accepted_without_refusal() {
    let (mut talks, port) = serve().await;
    let (_trigger, mut synced) = run(both(port, &Seen::new()));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    let policies = |nonce| DeltaDiscoveryResponse { type_url: POLICY.to_owned(), ..response(nonce, vec![]) };

    talk.answer(policies("n1")).await;
    talk.answer(response("n2", vec![resource("bad", "1")])).await;
    assert!(!*synced.borrow());
    talk.answer(response("n3", vec![])).await;
    soon(synced.wait_for(|synced| *synced)).await.unwrap();

    drop(talk);
    next(&mut talks).await;
    assert!(*synced.borrow());
}

#[tokio::test]
async fn one_undecodable_resource_among_good_ones_delays_sync_until_a_clean_response_and_no_longer() {
    let (mut talks, port) = serve().await;
    let seen = Seen::new();
    let (_trigger, mut synced) = run(both(port, &seen));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    let policies = |nonce| DeltaDiscoveryResponse { type_url: POLICY.to_owned(), ..response(nonce, vec![]) };
    let garbage = Any { type_url: ADDRESS.to_owned(), value: vec![0xff; 9] };
    let garbage = Resource { resource: Some(garbage), ..resource("garbage", "1") };

    let refused = talk.answer(response("n1", vec![resource("good", "1"), garbage])).await;
    assert!(refused.is_some_and(|names| names.starts_with("garbage: ")));
    talk.answer(policies("n2")).await;
    seen.holds(&[("good", "1")]).await;
    assert!(!*synced.borrow(), "the good ones are in force, and yet it is not in sync");

    // On a connection of its own, as after a restart of the control plane: it need not send the good ones again.
    drop(talk);
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    talk.answer(response("n3", vec![resource("garbage", "2")])).await;
    soon(synced.wait_for(|synced| *synced)).await.unwrap();
    seen.holds(&[("good", "1"), ("garbage", "2")]).await;
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_with_a_new_token() {
    let (mut talks, port) = serve().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "first").unwrap();
    let _running = run(client(port, Token::file(token.path()), &Seen::new(), Interest::All));
    let talk = next(&mut talks).await;
    assert_eq!(talk.headers["authorization"], "Bearer first");
    std::fs::write(token.path(), "second\n").unwrap();

    talk.responses.send(Err(Status::unavailable("transport is closing"))).await.unwrap();

    assert_eq!(next(&mut talks).await.headers["authorization"], "Bearer second");
}

#[tokio::test]
async fn a_demand_is_asked_for_once_and_ends_after_the_handler_saw_the_answer() {
    let (mut talks, port) = serve().await;
    let seen = Seen::new();
    let client = client(port, Token::None, &seen, Interest::Demanded);
    let demander = client.demander();
    let _running = run(client);
    let mut talk = next(&mut talks).await;
    let (addresses, _) = talk.greetings().await;
    assert_eq!(addresses.resource_names_subscribe, ["*"]);
    assert_eq!(addresses.resource_names_unsubscribe, ["*"]);

    let waiting = async { tokio::join!(demander.demand(ADDRESS, "a"), demander.demand(ADDRESS, "a")) };
    let answering = async {
        assert_eq!(talk.request().await.resource_names_subscribe, ["a"]);
        talk.answer(response("n1", vec![resource("a", "1")])).await
    };
    let ((first, second), answer) = soon(async { tokio::join!(waiting, answering) }).await;

    assert_eq!((first, second, answer), (Ok(()), Ok(()), None));
    seen.holds(&[("a", "1")]).await;
    // What is held already is not asked for again.
    soon(demander.demand(ADDRESS, "a")).await.unwrap();
}

#[tokio::test]
async fn a_demand_for_what_does_not_exist_ends_too() {
    let (mut talks, port) = serve().await;
    let client = client(port, Token::None, &Seen::new(), Interest::Demanded);
    let demander = client.demander();
    let _running = run(client);
    let mut talk = next(&mut talks).await;
    talk.greetings().await;

    let answering = async {
        assert_eq!(talk.request().await.resource_names_subscribe, ["nobody"]);
        let gone = DeltaDiscoveryResponse { removed_resources: names(&["nobody"]), ..response("n1", vec![]) };
        talk.answer(gone).await;
    };
    let (result, ()) = soon(async { tokio::join!(demander.demand(ADDRESS, "nobody"), answering) }).await;

    assert_eq!(result, Ok(()));
    assert!(soon(demander.demand("unwatched", "a")).await.is_err());
}

#[tokio::test]
async fn demanded_names_are_asked_for_again_on_a_new_stream() {
    let (mut talks, port) = serve().await;
    let client = client(port, Token::None, &Seen::new(), Interest::Demanded);
    let demander = client.demander();
    let _running = run(client);
    let mut talk = next(&mut talks).await;
    talk.greetings().await;
    let waiting = tokio::spawn(async move { demander.demand(ADDRESS, "a").await });
    talk.request().await;
    talk.answer(DeltaDiscoveryResponse { type_url: POLICY.to_owned(), ..response("n1", vec![]) }).await;

    drop(talk);
    let mut talk = next(&mut talks).await;
    let (addresses, _) = talk.greetings().await;

    assert_eq!(addresses.resource_names_subscribe, ["*", "a"]);
    talk.answer(response("n2", vec![resource("a", "1")])).await;
    assert_eq!(soon(waiting).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_drain_ends_the_client() {
    let (mut talks, port) = serve().await;
    let (trigger, drain) = runtime::drain::channel();
    let running = tokio::spawn(both(port, &Seen::new()).run(drain));
    let mut talk = next(&mut talks).await;
    talk.greetings().await;

    trigger.start(std::time::Duration::ZERO);

    soon(running).await.unwrap();
    // The server sees its end as a broken or a closed stream.
    assert!(!matches!(soon(talk.requests.message()).await, Ok(Some(_))));
}
