//! The pod enrolment protocol (ZDS) between node agent and node proxy, both halves.
//! It carries network namespaces; it does not enter them, and it does not decide which pods to enrol.
//!
//! A `SOCK_SEQPACKET` unix socket, one protobuf message of at most [`PACKET_BYTES`] per packet, the
//! namespace as `SCM_RIGHTS` on the packet that adds the pod. Strict stop-and-wait: the agent sends one
//! request, the proxy answers it with one [`client::Client::ack`], then comes the next.

pub mod client;
mod message;
mod packet;
pub mod server;

pub use message::{PodId, ProtocolError, Request, WorkloadInfo};
pub use packet::PACKET_BYTES;

use std::io;
use std::time::Duration;

/// First pause of a proxy whose connection ended, before it connects again.
pub const RECONNECT_MIN: Duration = Duration::from_millis(20);
/// Longest pause of a proxy between two attempts to connect.
pub const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// Pause of a proxy between two attempts to start a pod whose `Add` it refused.
pub const PENDING_RETRY: Duration = Duration::from_secs(5);

/// Error of an exchange on a ZDS socket.
#[derive(Debug, thiserror::Error)]
pub enum ZdsError {
    /// The socket could not be made, connected, read or written.
    #[error("{action} the enrolment socket: {source}")]
    Io { action: &'static str, source: io::Error },
    /// The other side closed the connection.
    #[error("the other side closed the enrolment socket")]
    Closed,
    /// The other side did not answer or read in time.
    #[error("no {what} within {waited:?}")]
    Timeout { what: &'static str, waited: Duration },
    /// A packet that is longer than [`PACKET_BYTES`], or whose file descriptors did not fit.
    #[error("a packet of the enrolment socket was cut off: {what}")]
    Truncated { what: &'static str },
    /// A packet that is no message of this protocol.
    #[error("invalid enrolment message: {0}")]
    Parse(#[from] prost::DecodeError),
    /// A message that has no place here.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// [`client::Client::next`] before the last command was answered, or an answer to nothing.
    #[error("the acknowledgement is out of turn")]
    OutOfTurn,
}

impl ZdsError {
    /// Stable: metric label and log key.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "zds_io",
            Self::Closed => "zds_closed",
            Self::Timeout { .. } => "zds_timeout",
            Self::Truncated { .. } => "zds_truncated",
            Self::Parse(_) => "zds_parse",
            Self::Protocol(error) => error.code(),
            Self::OutOfTurn => "zds_out_of_turn",
        }
    }

    /// True when the two programs do not speak the same protocol: a proxy exits instead of connecting again.
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Protocol(error) => error.is_fatal(),
            Self::Io { .. }
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Truncated { .. }
            | Self::Parse(_)
            | Self::OutOfTurn => false,
        }
    }
}
