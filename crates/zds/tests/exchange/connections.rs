//! Several proxies, proxies that end, and the order of questions and answers.

use std::os::unix::fs::PermissionsExt;

use zds::ZdsError;
use zds::client::{Client, Command};
use zds::server::{AddError, ConnectionId, DelError, Server};

use crate::{Agent, answering, id, pod, synced, within};

#[tokio::test]
async fn of_two_proxies_the_newer_gets_adds_and_both_get_dels() {
    let agent = Agent::start();
    let (older, _) = synced(&agent.path).await;
    let mut older = answering(older);
    let (newer, _) = synced(&agent.path).await;
    let mut newer = answering(newer);

    within(agent.registry.add(pod("a"))).await.unwrap();
    let acknowledged = within(agent.registry.del(&id("a"))).await.unwrap();

    assert_eq!(acknowledged, 2);
    assert!(matches!(newer.recv().await.unwrap(), Command::Add { .. }));
    assert!(matches!(newer.recv().await.unwrap(), Command::Del { .. }));
    assert!(matches!(older.recv().await.unwrap(), Command::Del { .. }));
}

#[tokio::test]
async fn when_the_newest_proxy_ends_the_one_before_takes_over() {
    let mut agent = Agent::start();
    let (older, _) = synced(&agent.path).await;
    let mut older = answering(older);
    let (newer, _) = synced(&agent.path).await;

    drop(newer);
    let ended = agent.ended().await;
    within(agent.registry.add(pod("a"))).await.unwrap();

    assert!(matches!(ended.cause, ZdsError::Closed));
    assert_eq!(ended.peer.pid, Some(std::process::id()));
    assert!(matches!(older.recv().await.unwrap(), Command::Add { .. }));
}

#[tokio::test]
async fn a_disconnect_in_the_middle_of_an_exchange_fails_the_add() {
    let mut agent = Agent::start();
    let (mut client, _) = synced(&agent.path).await;
    let registry = agent.registry.clone();

    let adding = tokio::spawn(async move { registry.add(pod("a")).await });
    within(client.next()).await.unwrap();
    drop(client);

    assert_eq!(within(adding).await.unwrap(), Err(AddError::Lost));
    agent.ended().await;
    assert!(agent.registry.connections().is_empty());
}

#[tokio::test]
async fn a_waiting_receive_that_is_dropped_loses_no_command() {
    let agent = Agent::start();
    let (mut client, _) = synced(&agent.path).await;

    for round in 0..50 {
        let registry = agent.registry.clone();
        let adding = tokio::spawn(async move { registry.add(pod(&round.to_string())).await });
        let command = within(async {
            loop {
                tokio::select! {
                    biased;
                    command = client.next() => break command.unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
        })
        .await;
        client.ack(Ok(())).await.unwrap();
        within(adding).await.unwrap().unwrap();

        assert!(matches!(command, Command::Add { uid, .. } if uid == id(&round.to_string())));
    }
}

#[tokio::test]
async fn the_socket_replaces_the_file_of_a_predecessor_and_is_for_root_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zds.sock");
    std::fs::write(&path, "stale").unwrap();

    let _server = Server::bind(&path).unwrap();

    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Client::connect(&path).await.is_ok());
}

#[tokio::test]
async fn a_command_is_answered_before_the_next_is_read() {
    let agent = Agent::start();
    let mut client = within(Client::connect(&agent.path)).await.unwrap();

    assert!(matches!(client.ack(Ok(())).await, Err(ZdsError::OutOfTurn)));
    within(client.next()).await.unwrap();

    assert!(matches!(client.next().await, Err(ZdsError::OutOfTurn)));
}

#[tokio::test]
async fn connections_are_numbered_in_the_order_of_their_coming() {
    let agent = Agent::start();
    let (_a, _) = synced(&agent.path).await;
    let (_b, _) = synced(&agent.path).await;

    let ids: Vec<ConnectionId> = agent.registry.connections().iter().map(|status| status.peer.connection).collect();

    assert_eq!(ids.len(), 2);
    assert!(ids[0] < ids[1]);
}

#[tokio::test]
async fn a_departure_is_not_acknowledged_by_a_proxy_whose_connection_ends_before_it_answers() {
    let mut agent = Agent::start();
    let (mut client, _) = synced(&agent.path).await;
    let registry = agent.registry.clone();

    let leaving = tokio::spawn(async move { registry.del(&id("a")).await });
    within(client.next()).await.unwrap();
    drop(client);

    assert_eq!(within(leaving).await.unwrap(), Err(DelError::Lost));
    agent.ended().await;
    assert_eq!(within(agent.registry.del(&id("a"))).await, Ok(0), "nobody is left to be asked");
}
