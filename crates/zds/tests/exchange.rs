//! Agent and proxy halves against each other over real sockets.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zds::client::{Client, Command};
use zds::server::{AddError, ConnectionId, Ended, Pod, Registry, Server};
use zds::{PodId, ProtocolError, WorkloadInfo, ZdsError};

const DEADLINE: Duration = Duration::from_secs(10);

struct Agent {
    _dir: tempfile::TempDir,
    path: PathBuf,
    registry: Registry,
    ended: mpsc::Receiver<Ended>,
    _accepting: JoinHandle<()>,
}

impl Agent {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zds.sock");
        let mut server = Server::bind(&path).unwrap();
        let registry = server.registry();
        let (sender, ended) = mpsc::channel(16);
        let accepting = tokio::spawn(async move {
            while let Ok(incoming) = server.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move { sender.send(incoming.serve().await).await });
            }
        });
        Self { _dir: dir, path, registry, ended, _accepting: accepting }
    }

    async fn ended(&mut self) -> Ended {
        within(self.ended.recv()).await.unwrap()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("the deadline passed")
}

fn id(uid: &str) -> PodId {
    PodId::new(uid).unwrap()
}

fn info(name: &str) -> WorkloadInfo {
    WorkloadInfo { name: name.into(), namespace: "default".into(), service_account: "sa".into() }
}

fn netns() -> Arc<OwnedFd> {
    Arc::new(File::open("/proc/self/ns/net").unwrap().into())
}

fn pod(uid: &str) -> Pod {
    Pod { uid: id(uid), info: info(uid), netns: Some(netns()) }
}

/// A client that has read and acknowledged the whole snapshot; returns the uids it was told of.
async fn synced(path: &Path) -> (Client, Vec<String>) {
    let mut client = within(Client::connect(path)).await.unwrap();
    let mut seen = Vec::new();
    while !client.snapshot_complete() {
        let command = within(client.next()).await.unwrap();
        seen.extend(command.uid().map(|uid| uid.to_string()));
        client.ack(Ok(())).await.unwrap();
    }
    (client, seen)
}

async fn until(mut done: impl FnMut() -> bool) {
    within(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Answers every command of `client` until the agent goes away and reports each.
fn answering(mut client: Client) -> mpsc::Receiver<Command> {
    let (sender, commands) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok(command) = client.next().await {
            client.ack(Ok(())).await.unwrap();
            if sender.send(command).await.is_err() {
                return;
            }
        }
    });
    commands
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

fn rustix_ino(fd: &impl AsFd) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let meta = File::from(fd.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
    (meta.dev(), meta.ino())
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
    use std::os::unix::fs::PermissionsExt;
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

/// Peers that do not keep to the protocol, played with plain packets.
mod nonsense {
    use std::io::{IoSlice, IoSliceMut};
    use std::mem::MaybeUninit;
    use std::os::fd::BorrowedFd;

    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketAddrUnix, SocketFlags, SocketType,
    };

    use super::*;

    const ADD: &[u8] = b"\x0a\x0c\x0a\x02u1\x12\x06\x0a\x01n\x12\x01d";
    const ADD_WITHOUT_INFO: &[u8] = b"\x0a\x04\x0a\x02u1";
    const DEL: &[u8] = b"\x12\x04\x12\x02u1";
    const KEEP: &[u8] = b"\x2a\x04\x0a\x02u1";
    const SNAPSHOT: &[u8] = b"\x1a\x00";
    const HELLO: &[u8] = b"\x08\x01";

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
}
