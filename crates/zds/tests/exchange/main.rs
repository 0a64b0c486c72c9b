//! Agent and proxy halves against each other over real sockets.

mod connections;
mod nonsense;
mod pods;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zds::client::{Client, Command};
use zds::server::{Ended, Pod, Registry, Server};
use zds::{PodId, WorkloadInfo};

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
