//! The control protocol: JSON lines over the lab's unix socket. One connection is one request;
//! descriptors travel with its first line. What a request does is in `supervisor`.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use kube_types::SourceProblem;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::Interest, net::UnixStream};

/// Longest line either side accepts.
const MAX_LINE_BYTES: usize = 4 << 20;

/// Descriptors that may travel with one line: the three of a process.
const MAX_DESCRIPTORS: usize = 3;

/// Place in which a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// In a pod: `namespace/name`, or a name in `default`; in the named or first container.
    Pod {
        /// The pod.
        pod: String,
        /// The container, else the pod's first.
        container: Option<String>,
    },
    /// In a node's network namespace, outside of its pods.
    Node(String),
}

/// Request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// One `Reply::Status`.
    Status,
    /// Runs a command with the three descriptors that came along; `Reply::Started`, then
    /// `Reply::Exited`. The process is killed when the client goes. Takes `Followup::Signal`.
    Exec {
        /// Place of the command.
        target: Target,
        /// The command and its arguments.
        argv: Vec<String>,
        /// Added to the container's environment.
        env: Vec<(String, String)>,
        /// True if the first descriptor is a terminal that the command controls.
        #[serde(default)]
        terminal: bool,
    },
    /// Sends a signal to the main process of a container.
    Kill {
        /// The pod.
        pod: String,
        /// The container, else the pod's first.
        container: Option<String>,
        /// Signal number.
        signal: i32,
    },
    /// Stops or resumes the restarting of a pod's containers.
    PauseRestarts {
        /// The pod.
        pod: String,
        /// True if a container that exits is not started again.
        paused: bool,
    },
    /// Records a node's wire until `Followup::Stop` or the client goes: `Reply::Capturing`,
    /// then `Reply::Captured`.
    Capture {
        /// The node.
        node: String,
    },
    /// The network namespace of a pod or node, as the descriptor of a `Reply::Done`.
    Netns(Target),
    /// Ties the lab to this connection: it goes down when the client goes without `Followup::Detach`.
    Leash,
    /// Stops every pod; the connection ends when the supervisor does.
    Down,
}

/// Message of a client on a connection after its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Followup {
    /// To the process of an `Exec`.
    Signal(i32),
    /// End of a `Capture`.
    Stop,
    /// The lab outlives its `Leash`.
    Detach,
}

/// Answer of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// Done, with nothing to say.
    Done,
    /// Answer to `Request::Status`.
    Status(Box<Status>),
    /// The command runs.
    Started,
    /// The command ended: exit code, or 128 and the signal.
    Exited(i32),
    /// The capture has begun; its file.
    Capturing(PathBuf),
    /// The capture has ended.
    Captured {
        /// Packets in the file.
        packets: u64,
        /// Packets that the kernel dropped because they were not read in time.
        dropped: u64,
    },
    /// It could not be done.
    Error(String),
}

/// A lab as its supervisor sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// True if every manifest was read and everything in it was started at least once.
    pub synced: bool,
    /// Nodes, in order.
    pub nodes: Vec<NodeInfo>,
    /// Pods, by namespace and name.
    pub pods: Vec<PodInfo>,
    /// Services, by namespace and name.
    pub services: Vec<ServiceInfo>,
    /// Errors of manifests, and pods that cannot run; a line each.
    pub problems: Vec<String>,
    /// Manifests that protect or route traffic elsewhere and have no effect here; a line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Problems of manifests, notes too.
    #[serde(default)]
    pub manifests: Vec<SourceProblem>,
    /// Things besides pods that are still to come: a Job's next try.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// Pods that a lab cannot run because they need a container image.
    #[serde(default)]
    pub without_image: u32,
    /// Settings of the manifests that are not supported, although their object runs.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its addresses on the wire, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Changes whenever the pod is made anew.
    pub uid: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, IPv4 first; empty until it has them.
    pub ips: Vec<IpAddr>,
    /// Phase in its life.
    pub phase: Phase,
    /// True if every container runs and its readiness probe passes.
    pub ready: bool,
    /// True if it is being stopped.
    pub terminating: bool,
    /// True if nothing of it can start until a manifest changes; `reason` says why.
    #[serde(default)]
    pub blocked: bool,
    /// Reason why it is not ready; empty when it is.
    pub reason: String,
    /// Its containers, in order.
    pub containers: Vec<ContainerInfo>,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Process id of its oldest process, as the caller of `Lab::pods` sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInfo {
    /// Its name.
    pub name: String,
    /// Role in its pod.
    #[serde(default)]
    pub role: Role,
    /// True if its main process runs.
    pub running: bool,
    /// True if its readiness probe passes; without a probe, if it runs.
    pub ready: bool,
    /// Number of restarts.
    pub restarts: u32,
    /// Last exit code, or 128 and the signal that ended it.
    pub last_exit: Option<i32>,
    /// Process id of its main process, as the caller of `Lab::pods` sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// Role of a container in its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One of `containers`.
    #[default]
    Main,
    /// One of `initContainers`: runs to its end before the others start.
    Init,
    /// One of `initContainers` with `restartPolicy: Always`: keeps running.
    Sidecar,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses; empty for a headless one.
    pub ips: Vec<IpAddr>,
    /// Addresses of its ready endpoints, of both families.
    pub endpoints: Vec<IpAddr>,
    /// Its ready endpoints: a pod with an address of each family is one.
    #[serde(default)]
    pub endpoint_count: usize,
}

/// `status.phase` of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not all containers have been started.
    Pending,
    /// Bound to a node, at least one container runs or restarts.
    Running,
    /// All containers ended with 0 and will not be started again.
    Succeeded,
    /// All containers ended, one of them not with 0, and will not be started again.
    Failed,
}

impl Phase {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// One end of a control connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Connection {
    /// Speaks over a connected socket.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), descriptors: VecDeque::new() }
    }

    /// Sends one message, with descriptors.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        let mut attached = descriptors;
        while !rest.is_empty() {
            let sent = self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !attached.is_empty() && !control.push(SendAncillaryMessage::ScmRights(attached)) {
                        return Err(io::Error::from(io::ErrorKind::InvalidInput));
                    }
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    Ok(rustix::net::sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, flags)?)
                })
                .await?;
            // The descriptors went with the first byte that was sent. With the rest of the line they would be sent a
            // second time.
            attached = &[];
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// The next message; `None` when the peer closed. Safe to drop half-way.
    ///
    /// # Errors
    /// When the line is no such message or too long.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            // Without a bound, a peer that never ends its line would fill the memory of this process.
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Takes the descriptors that came with the lines received so far.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.descriptors.drain(..).collect()
    }

    async fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let stream = &self.stream;
        let descriptors = &mut self.descriptors;
        let count = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                // Close-on-exec must be set as the descriptor arrives: a command that another task starts in between
                // would inherit it.
                let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
                let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        descriptors.extend(rights);
                    }
                }
                Ok(received.bytes)
            })
            .await?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, io::Write, os::fd::AsFd};

    use super::*;

    #[tokio::test]
    async fn a_request_arrives_with_its_descriptors() {
        let (client, server) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let request = Request::Exec {
            target: Target::Node("node-1".into()),
            argv: vec!["true".into()],
            env: vec![],
            terminal: false,
        };

        Connection::new(client).send(&request, &[write.as_fd()]).await.unwrap();
        drop(write);
        let mut server = Connection::new(server);
        let received: Option<Request> = server.receive().await.unwrap();

        assert_eq!(received, Some(request));
        let mut descriptors = server.take_descriptors();
        assert_eq!(descriptors.len(), 1);
        std::fs::File::from(descriptors.remove(0)).write_all(b"hello").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(server.receive::<Request>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_long_answer_arrives_whole() {
        let (client, server) = UnixStream::pair().unwrap();
        let status = Status { problems: vec!["x".repeat(1000); 1000], ..Status::default() };
        let reply = Reply::Status(Box::new(status));
        let mut server = Connection::new(server);

        let client = Connection::new(client);
        let (sent, received) = tokio::join!(client.send(&reply, &[]), server.receive::<Reply>());

        sent.unwrap();
        assert_eq!(received.unwrap(), Some(reply));
    }
}
