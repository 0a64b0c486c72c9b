//! Messages about pods to a proxy, and what counts as its answer.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use zds::client::{Client, Command};
use zds::server::AddError;

use crate::{Agent, answering, id, info, netns, pod, synced, until, within};

fn rustix_ino(fd: &impl AsFd) -> (u64, u64) {
    let meta = File::from(fd.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
    (meta.dev(), meta.ino())
}

#[tokio::test]
async fn the_snapshot_adds_known_pods_and_keeps_the_others() {
    let agent = Agent::start();
    agent.registry.register(pod("known"));
    agent.registry.keep(&id("unknown"), info("unknown"));
    let mut client = within(Client::connect(&agent.path)).await.unwrap();

    let first = within(client.next()).await.unwrap();
    client.ack(Ok(())).await.unwrap();
    let second = within(client.next()).await.unwrap();
    client.ack(Ok(())).await.unwrap();
    let third = within(client.next()).await.unwrap();
    client.ack(Ok(())).await.unwrap();

    let Command::Add { uid, info: got, netns: fd } = first else { panic!("{first:?}") };
    assert_eq!((uid, got), (id("known"), info("known")));
    assert_eq!(rustix_ino(&fd), rustix_ino(&*netns()));
    assert!(matches!(second, Command::Keep { uid } if uid == id("unknown")));
    assert!(matches!(third, Command::SnapshotSent));
    until(|| agent.registry.connections().iter().any(|connection| connection.synced)).await;
    assert!(agent.registry.acknowledged(&id("known")).is_ok());
    assert!(agent.registry.acknowledged(&id("unknown")).is_err());
}

#[tokio::test]
async fn an_add_succeeds_only_with_the_proxys_acknowledgement() {
    let agent = Agent::start();
    let (mut client, _) = synced(&agent.path).await;
    let registry = agent.registry.clone();

    let adding = tokio::spawn(async move { registry.add(pod("a")).await });
    let command = within(client.next()).await.unwrap();
    assert!(matches!(&command, Command::Add { .. }));
    assert!(!adding.is_finished());
    client.ack(Err("address in use".to_owned())).await.unwrap();

    let refused = within(adding).await.unwrap();
    assert_eq!(refused, Err(AddError::Refused { reason: "address in use".to_owned() }));
    assert_eq!(agent.registry.acknowledged(&id("a")), Err("address in use".to_owned()));

    let _commands = answering(client);
    assert!(within(agent.registry.add(pod("a"))).await.is_ok());
    assert!(agent.registry.acknowledged(&id("a")).is_ok());
}

#[tokio::test]
async fn an_add_without_a_proxy_fails_and_the_next_snapshot_has_it() {
    let agent = Agent::start();

    let result = agent.registry.add(pod("a")).await;

    assert_eq!(result, Err(AddError::NoConnection));
    let (_client, seen) = synced(&agent.path).await;
    assert_eq!(seen, ["a"]);
}

#[tokio::test]
async fn a_new_namespace_of_a_pod_is_not_acknowledged_until_it_was_sent() {
    let agent = Agent::start();
    let (client, _) = synced(&agent.path).await;
    let _commands = answering(client);
    within(agent.registry.add(pod("a"))).await.unwrap();

    agent.registry.register(pod("a"));

    assert!(agent.registry.acknowledged(&id("a")).is_err());
    within(agent.registry.add(pod("a"))).await.unwrap();
    assert!(agent.registry.acknowledged(&id("a")).is_ok());
}
