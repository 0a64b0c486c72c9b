//! The proxy's half: connects, says hello, yields one request at a time and answers it.
//! It keeps no list of pods; reconnecting and draining are the caller's.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::ZdsError;
use crate::message::{self, ProtocolError, Request};
use crate::packet::PacketSocket;

/// Longest wait for the agent to take an answer.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Another name for [`Request`], as the proxy sees it.
pub type Command = Request;

/// One connection to the node agent.
///
/// Dropping it is a disconnect: the pods go on, and the next connection begins with a whole snapshot.
/// Pause [`crate::RECONNECT_MIN`], doubled up to [`crate::RECONNECT_MAX`], between two connections.
pub struct Client {
    socket: PacketSocket,
    owes_ack: bool,
    snapshot_complete: bool,
}

impl Client {
    /// Connects to the agent's socket and says hello.
    pub async fn connect(path: &Path) -> Result<Self, ZdsError> {
        let socket = PacketSocket::connect(path).map_err(|source| ZdsError::Io { action: "connect to", source })?;
        let client = Self { socket, owes_ack: false, snapshot_complete: false };
        client.write(&message::hello()).await?;
        Ok(client)
    }

    /// The agent's next command; it must be answered by [`Client::ack`] before the next call.
    ///
    /// Cancel-safe: dropping the future loses no command and no descriptor. A command that breaks the protocol is refused towards the
    /// agent and returned as an error; after any error the connection is unusable. [`ZdsError::is_fatal`] tells whether to exit.
    pub async fn next(&mut self) -> Result<Command, ZdsError> {
        if self.owes_ack {
            return Err(ZdsError::OutOfTurn);
        }
        let packet = match self.socket.recv().await {
            Ok(packet) => packet,
            Err(error) => return Err(self.refuse(error)),
        };
        match message::parse_request(packet).and_then(|request| self.check_order(request)) {
            Ok(command) => {
                self.owes_ack = true;
                Ok(command)
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// Answers the last command; `Err` is the reason, in the agent's log and retried by it. Longer than a packet: cut.
    pub async fn ack(&mut self, result: Result<(), String>) -> Result<(), ZdsError> {
        if !self.owes_ack {
            return Err(ZdsError::OutOfTurn);
        }
        let answer = match &result {
            Ok(()) => message::ack(Ok(())),
            Err(reason) => message::ack(Err(reason)),
        };
        self.write(&answer).await?;
        // After the write: an answer that was not sent is still owed, and the connection is unusable.
        self.owes_ack = false;
        Ok(())
    }

    /// True once the agent has named every pod on this connection.
    pub const fn snapshot_complete(&self) -> bool {
        self.snapshot_complete
    }

    fn check_order(&mut self, request: Request) -> Result<Request, ZdsError> {
        match &request {
            Request::Keep { .. } if self.snapshot_complete => {
                Err(ProtocolError::AfterSnapshot { message: "keep" }.into())
            }
            Request::SnapshotSent if self.snapshot_complete => {
                Err(ProtocolError::AfterSnapshot { message: "snapshot_sent" }.into())
            }
            Request::SnapshotSent => {
                self.snapshot_complete = true;
                Ok(request)
            }
            Request::Add { .. } | Request::Keep { .. } | Request::Del { .. } => Ok(request),
        }
    }

    /// Tells the agent what was wrong, as far as the socket takes it at once.
    fn refuse(&self, error: ZdsError) -> ZdsError {
        if !matches!(error, ZdsError::Closed | ZdsError::Io { .. }) {
            // The agent waits for an answer, and its log is where an operator looks first. Without waiting: the
            // connection is closed next.
            self.socket.send_now(&message::ack(Err(&error.to_string())));
        }
        error
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), ZdsError> {
        timeout(WRITE_DEADLINE, self.socket.send(bytes, None))
            .await
            .map_err(|_| ZdsError::Timeout { what: "room in the socket", waited: WRITE_DEADLINE })?
    }
}
