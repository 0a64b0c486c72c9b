//! Peers that do not keep to the protocol, played with plain packets.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use zds::client::{Client, Command};
use zds::server::AddError;
use zds::{ProtocolError, ZdsError};

use crate::{Agent, id, netns, pod, until, within};

const ADD: &[u8] = b"\x0a\x0c\x0a\x02u1\x12\x06\x0a\x01n\x12\x01d";
const ADD_WITHOUT_INFO: &[u8] = b"\x0a\x04\x0a\x02u1";
const DEL: &[u8] = b"\x12\x04\x12\x02u1";
const KEEP: &[u8] = b"\x2a\x04\x0a\x02u1";
const SNAPSHOT: &[u8] = b"\x1a\x00";
const HELLO: &[u8] = b"\x08\x01";
const ACK: &[u8] = b"\x0a\x00";

fn raw() -> OwnedFd {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// An agent of one connection, blocking, that sends what the test says.
struct RawAgent {
    _dir: tempfile::TempDir,
    connection: OwnedFd,
}

impl RawAgent {
    async fn with_client() -> (Self, Client) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zds.sock");
        let listener = raw();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let client = within(Client::connect(&path)).await.unwrap();
        let connection = rustix::net::accept(&listener).unwrap();
        let agent = Self { _dir: dir, connection };
        assert_eq!(read(&agent.connection), HELLO);
        (agent, client)
    }

    fn send(&self, bytes: &[u8], descriptors: usize) {
        let netns = netns();
        let descriptors: Vec<BorrowedFd<'_>> = (0..descriptors).map(|_| netns.as_fd()).collect();
        send(&self.connection, bytes, &descriptors);
    }

    fn refusal(&self) -> String {
        let bytes = read(&self.connection);
        assert!(bytes.len() > 4 && bytes[0] == 0x0a, "no refusal: {bytes:?}");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); 256];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

fn read(socket: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let mut control = RecvAncillaryBuffer::default();
    let read =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).unwrap();
    bytes.truncate(read.bytes);
    bytes
}

async fn error_for(bytes: &[u8], descriptors: usize) -> (ZdsError, String) {
    let (agent, mut client) = RawAgent::with_client().await;
    agent.send(bytes, descriptors);
    let error = within(client.next()).await.unwrap_err();
    (error, agent.refusal())
}

#[tokio::test]
async fn an_add_without_a_descriptor_is_refused() {
    let (error, refusal) = error_for(ADD, 0).await;

    assert!(matches!(error, ZdsError::Protocol(ProtocolError::AddDescriptors { found: 0, .. })));
    assert!(!error.is_fatal());
    assert!(refusal.contains("expected exactly one"));
}

#[tokio::test]
async fn an_add_with_two_descriptors_is_refused_and_leaks_none() {
    let before = std::fs::read_dir("/proc/self/fd").unwrap().count();

    for _ in 0..20 {
        let (error, _) = error_for(ADD, 2).await;
        assert!(matches!(error, ZdsError::Protocol(ProtocolError::AddDescriptors { found: 2, .. })));
    }

    let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(after < before + 20, "{before} descriptors before, {after} after");
}

#[tokio::test]
async fn more_descriptors_than_any_message_has_count_as_cut_off() {
    let (error, _) = error_for(ADD, 20).await;

    assert!(matches!(error, ZdsError::Truncated { .. }));
}

#[tokio::test]
async fn a_del_with_a_descriptor_is_refused() {
    let (error, _) = error_for(DEL, 1).await;

    assert!(matches!(error, ZdsError::Protocol(ProtocolError::UnexpectedDescriptors { message: "del", found: 1 })));
}

#[tokio::test]
async fn an_add_without_workload_info_is_fatal() {
    let (error, _) = error_for(ADD_WITHOUT_INFO, 1).await;

    assert!(matches!(error, ZdsError::Protocol(ProtocolError::MissingInfo { .. })));
    assert!(error.is_fatal());
}

#[tokio::test]
async fn a_packet_that_is_no_message_is_refused() {
    let (error, _) = error_for(b"\xff\xff\xff\xff", 0).await;

    assert!(matches!(error, ZdsError::Parse(_)));
}

#[tokio::test]
async fn a_packet_that_is_too_long_is_refused() {
    let (error, _) = error_for(&[0x0a; 1025], 0).await;

    assert!(matches!(error, ZdsError::Truncated { .. }));
}

#[tokio::test]
async fn keep_and_a_second_snapshot_are_fatal_once_the_snapshot_is_complete() {
    for message in [KEEP, SNAPSHOT] {
        let (agent, mut client) = RawAgent::with_client().await;
        agent.send(SNAPSHOT, 0);
        assert!(matches!(within(client.next()).await.unwrap(), Command::SnapshotSent));
        client.ack(Ok(())).await.unwrap();
        assert_eq!(read(&agent.connection), b"\x0a\x00");

        agent.send(message, 0);
        let error = within(client.next()).await.unwrap_err();

        assert!(error.is_fatal(), "{error}");
    }
}

/// Connects to a real agent, sends `packets` and reports why the agent ended the connection.
async fn ended_after(packets: &[&[u8]]) -> ZdsError {
    let mut agent = Agent::start();
    let socket = raw();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&agent.path).unwrap()).unwrap();
    for packet in packets {
        send(&socket, packet, &[]);
    }
    let ended = agent.ended().await;
    assert!(agent.registry.connections().is_empty());
    ended.cause
}

#[tokio::test]
async fn an_agent_drops_a_proxy_whose_hello_is_nonsense() {
    assert!(matches!(ended_after(&[b"\xff\xff"]).await, ZdsError::Parse(_)));
    assert!(matches!(ended_after(&[b"\x08\x02"]).await, ZdsError::Protocol(ProtocolError::Version { found: 2 })));
}

#[tokio::test]
async fn an_agent_drops_a_proxy_whose_answer_is_nonsense() {
    assert!(matches!(ended_after(&[HELLO, &[7; 1500]]).await, ZdsError::Truncated { .. }));
}

#[tokio::test]
async fn an_agent_drops_a_proxy_that_speaks_without_being_asked() {
    assert!(matches!(ended_after(&[HELLO, b"\x0a\x00", b"\x0a\x00"]).await, ZdsError::OutOfTurn));
}

#[tokio::test(start_paused = true)]
async fn an_agent_drops_a_proxy_that_never_says_hello() {
    let mut agent = Agent::start();
    let socket = raw();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&agent.path).unwrap()).unwrap();

    let ended = agent.ended.recv().await.unwrap();

    assert!(matches!(ended.cause, ZdsError::Timeout { what: "hello", .. }));
}

#[tokio::test(start_paused = true)]
async fn an_agent_drops_a_proxy_that_does_not_acknowledge() {
    let mut agent = Agent::start();
    agent.registry.register(pod("a"));
    let socket = raw();
    rustix::net::connect(&socket, &SocketAddrUnix::new(&agent.path).unwrap()).unwrap();
    send(&socket, HELLO, &[]);

    let ended = agent.ended.recv().await.unwrap();

    assert!(matches!(ended.cause, ZdsError::Timeout { what: "acknowledgement", .. }));
}

/// Reads one packet without keeping the runtime's thread from the other side.
async fn read_from(socket: &Arc<OwnedFd>) -> Vec<u8> {
    let socket = socket.clone();
    within(tokio::task::spawn_blocking(move || read(&socket))).await.unwrap()
}

#[tokio::test]
async fn an_answer_that_comes_twice_acknowledges_nothing_that_is_asked_later() {
    for _ in 0..20 {
        let mut agent = Agent::start();
        let socket = Arc::new(raw());
        rustix::net::connect(&socket, &SocketAddrUnix::new(&agent.path).unwrap()).unwrap();
        send(&socket, HELLO, &[]);
        read_from(&socket).await;
        send(&socket, ACK, &[]);
        until(|| agent.registry.connections().iter().any(|connection| connection.synced)).await;
        let registry = agent.registry.clone();
        let adding = tokio::spawn(async move { registry.add(pod("first")).await });
        read_from(&socket).await;

        send(&socket, ACK, &[]);
        send(&socket, ACK, &[]);
        within(adding).await.unwrap().unwrap();
        let second = within(agent.registry.add(pod("second"))).await;

        assert!(matches!(second, Err(AddError::Lost | AddError::NoConnection)), "{second:?}");
        assert!(agent.registry.acknowledged(&id("second")).is_err());
        assert!(matches!(agent.ended().await.cause, ZdsError::OutOfTurn));
    }
}
