//! One proxy's connection, from hello to its end. Which pods exist is the registry's business.

use std::fmt;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::registry::{Pod, Registry, Update};
use super::{DEADLINE, Peer};
use crate::ZdsError;
use crate::message::{self, PodId};
use crate::packet::{PacketSocket, Received};

/// End of a connection, with its cause.
#[derive(Debug)]
pub struct Ended {
    pub peer: Peer,
    pub cause: ZdsError,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enrolment connection {} ended: {}", self.peer.connection, self.cause)
    }
}

/// A proxy that connected and has been told nothing. Dropping it refuses the proxy.
pub struct Incoming {
    socket: PacketSocket,
    peer: Peer,
    registry: Registry,
}

impl Incoming {
    pub(super) const fn new(socket: PacketSocket, peer: Peer, registry: Registry) -> Self {
        Self { socket, peer, registry }
    }

    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// Reads the hello, sends the snapshot, then passes on what the registry asks, until the connection ends.
    ///
    /// From the first poll on this is the newest connection. Dropping the future ends the connection.
    pub async fn serve(self) -> Ended {
        let (sender, queue) = mpsc::channel(super::QUEUE_DEPTH);
        // Before the hello is read: from here on new pods wait in the queue of this connection, so that none falls
        // between the snapshot and the updates.
        let guard = self.registry.connected(self.peer, sender);
        let session = Session { socket: self.socket, peer: self.peer, registry: self.registry.clone() };
        let cause = match session.run(queue).await {
            Ok(never) => match never {},
            Err(cause) => cause,
        };
        drop(guard);
        Ended { peer: self.peer, cause }
    }
}

struct Session {
    socket: PacketSocket,
    peer: Peer,
    registry: Registry,
}

impl Session {
    async fn run(&self, mut queue: mpsc::Receiver<Update>) -> Result<std::convert::Infallible, ZdsError> {
        message::parse_hello(&self.read("hello").await?)?;
        // A pod that is added meanwhile may be in both, which is harmless: an `Add` of a pod that runs changes nothing.
        // Of a copy: the registry is not locked while a proxy answers.
        for pod in self.registry.snapshot() {
            self.introduce(&pod).await?;
        }
        if let Err(reason) = self.exchange(&message::snapshot_sent(), None).await? {
            tracing::warn!(connection = %self.peer.connection, reason, "ztunnel rejected the end of the snapshot");
        }
        self.registry.synced(self.peer.connection);
        loop {
            // Both arms are cancel-safe: a queue's `recv` and a packet's. What was sent unasked comes first: it is no answer
            // to what is asked next.
            tokio::select! {
                biased;
                // Nothing is outstanding, so the end of the connection is all there can be to read.
                unasked = self.socket.recv() => {
                    unasked?;
                    return Err(ZdsError::OutOfTurn);
                }
                update = queue.recv() => match update {
                    Some(update) => self.apply(update).await?,
                    // Not reached: the registry keeps a sender until the guard is dropped.
                    None => return Err(ZdsError::Closed),
                },
            }
        }
    }

    /// One pod of the snapshot. A refusal is kept for whoever asks why the pod is not served; the proxy tries again by itself.
    async fn introduce(&self, pod: &Pod) -> Result<(), ZdsError> {
        match &pod.netns {
            Some(netns) => {
                let answer = self.exchange(&message::add(&pod.uid, &pod.info), Some(netns)).await?;
                self.registry.answered(self.peer.connection, pod, answer);
            }
            None => {
                if let Err(reason) = self.exchange(&message::keep(&pod.uid), None).await? {
                    tracing::warn!(connection = %self.peer.connection, uid = %pod.uid, reason, "ztunnel rejected keeping a pod that it served before");
                }
            }
        }
        Ok(())
    }

    async fn apply(&self, update: Update) -> Result<(), ZdsError> {
        match update {
            Update::Add { pod, answer } => {
                // Not reached: `Registry::add` refuses such a pod.
                let Some(netns) = &pod.netns else { return Ok(()) };
                let result = self.exchange(&message::add(&pod.uid, &pod.info), Some(netns)).await?;
                self.registry.answered(self.peer.connection, &pod, result.clone());
                // The caller may have given up.
                let _: Result<(), Result<(), String>> = answer.send(result);
            }
            Update::Del { uid, answer } => {
                let result = self.exchange(&message::del(&uid), None).await?;
                self.registry.forgotten(self.peer.connection, &uid);
                let _: Result<(), Result<(), String>> = answer.send(result);
            }
        }
        Ok(())
    }

    /// One request and its answer: strict stop-and-wait. Answers have no number, so one that came before its request would be taken
    /// for an acknowledgement that nobody gave: the connection ends.
    async fn exchange(
        &self,
        request: &[u8],
        netns: Option<&std::sync::Arc<std::os::fd::OwnedFd>>,
    ) -> Result<Result<(), String>, ZdsError> {
        use std::os::fd::AsFd;
        if request.len() > crate::PACKET_BYTES {
            // A refusal of this pod only: the connection stays open for the others.
            return Ok(Err(format!(
                "the request is {} bytes long, a packet holds {}",
                request.len(),
                crate::PACKET_BYTES
            )));
        }
        if self.socket.has_unread() {
            // The end of the connection, or a packet.
            self.read("end of the connection").await?;
            return Err(ZdsError::OutOfTurn);
        }
        timeout(DEADLINE, self.socket.send(request, netns.map(|fd| fd.as_fd())))
            .await
            .map_err(|_| ZdsError::Timeout { what: "room in the socket", waited: DEADLINE })??;
        message::parse_ack(&self.read("acknowledgement").await?)
    }

    async fn read(&self, what: &'static str) -> Result<Received, ZdsError> {
        timeout(DEADLINE, self.socket.recv()).await.map_err(|_| ZdsError::Timeout { what, waited: DEADLINE })?
    }
}

/// Name of a pod in the log.
impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid: &PodId = &self.uid;
        write!(f, "{}/{} ({uid})", self.info.namespace, self.info.name)
    }
}
