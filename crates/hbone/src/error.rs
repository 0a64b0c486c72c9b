//! Errors of tunnels and streams.

use http2::{Cause, Error, Flood, GoingAway, Reason, Stream};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A tunnel could not be made, or did not end in order.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TunnelError {
    /// The peer does not speak HTTP/2, or ended during its handshake.
    #[error("http2 handshake failed: {0}")]
    Handshake(Arc<Error>),
    /// HTTP/2 failed later.
    #[error("h2 failed: {0}")]
    Protocol(Arc<Error>),
    /// The peer's answer to a PING did not come.
    #[error("no answer to a ping within {0:?}")]
    PingTimeout(Duration),
}

impl TunnelError {
    /// Stable name of the variant, for metrics and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "h2_handshake",
            Self::Protocol(_) => "h2",
            Self::PingTimeout(_) => "ping_timeout",
        }
    }

    /// Returns the error of a handshake.
    pub(crate) fn handshake(fault: Arc<Error>) -> Self {
        match *fault {
            Error::PingTimeout(waited) => Self::PingTimeout(waited),
            _ => Self::Handshake(fault),
        }
    }

    /// Returns the kind of frame that the peer has sent too much of, if that ended the tunnel. A log line should name
    /// the peer.
    pub fn flood(&self) -> Option<Flood> {
        match self {
            Self::Handshake(fault) | Self::Protocol(fault) => match **fault {
                Error::Flood(flood) => Some(flood),
                Error::Io(_)
                | Error::UnexpectedEof
                | Error::Violation { .. }
                | Error::PingTimeout(_)
                | Error::Dropped => None,
            },
            Self::PingTimeout(_) => None,
        }
    }
}

impl From<Arc<Error>> for TunnelError {
    fn from(fault: Arc<Error>) -> Self {
        match *fault {
            Error::PingTimeout(waited) => Self::PingTimeout(waited),
            _ => Self::Protocol(fault),
        }
    }
}

/// A stream could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The peer answered, but not with 200.
    #[error("http status: {0}")]
    Status(http::StatusCode),
    /// The stream was reset before an answer came.
    #[error("h2 failed: stream reset: {0:?}")]
    Reset(Reason),
    /// The tunnel ended before an answer came.
    #[error("h2 failed: {0}")]
    Tunnel(Arc<Error>),
    /// The tunnel takes no more streams, and the peer has not seen this one.
    #[error("h2 failed: the tunnel is closing")]
    GoingAway,
    /// The peer takes no more streams, and none ended in time.
    #[error("h2 failed: the peer takes no more streams for {0:?}")]
    NoStreams(Duration),
    /// The authority cannot be sent.
    #[error("invalid CONNECT address {0}")]
    Authority(String),
}

impl ConnectError {
    /// Stable name of the variant, for metrics and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Status(_) => "http_status",
            Self::Reset(_) | Self::Tunnel(_) | Self::GoingAway | Self::NoStreams(_) => "h2",
            Self::Authority(_) => "authority",
        }
    }

    /// Returns whether the peer has processed nothing, so that another tunnel may be tried.
    pub const fn is_unprocessed(&self) -> bool {
        matches!(self, Self::GoingAway | Self::NoStreams(_) | Self::Reset(Reason::Refused))
    }
}

impl From<GoingAway> for ConnectError {
    fn from(_: GoingAway) -> Self {
        Self::GoingAway
    }
}

/// A stream ended while bytes were on their way.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer does not want more; ordinary at the end of a connection.
    #[error("broken pipe")]
    BrokenPipe,
    /// The peer reset the stream.
    #[error("h2 failed: stream reset: {0:?}")]
    Reset(Reason),
    /// The tunnel ended.
    #[error("h2 failed: {0}")]
    Tunnel(Arc<Error>),
}

impl StreamError {
    /// Returns what follows all that was received: an end or an error; `None` if more may come.
    pub(crate) fn end_of_data(stream: &Stream) -> Option<Result<(), Self>> {
        // A reset behind END_STREAM does not make the data incomplete.
        if stream.is_end_stream_received() {
            return Some(Ok(()));
        }
        Some(match stream.abort_cause()? {
            Cause::EndStream => Ok(()),
            Cause::ResetByPeer(reason) => Self::receiving(*reason),
            Cause::ResetByUs(reason) => Err(Self::Reset(*reason)),
            Cause::Unprocessed => Err(Self::Reset(Reason::Refused)),
            Cause::ConnectionLost(fault) => Err(Self::Tunnel(fault.clone())),
        })
    }

    /// Returns the error of a sender, if the stream is closed before its end.
    pub(crate) fn end_of_sending(stream: &Stream) -> Option<Self> {
        Some(match stream.abort_cause()? {
            Cause::ResetByPeer(reason) => Self::sending(*reason),
            Cause::EndStream | Cause::ResetByUs(_) => Self::BrokenPipe,
            Cause::Unprocessed => Self::Reset(Reason::Refused),
            Cause::ConnectionLost(fault) => Self::Tunnel(fault.clone()),
        })
    }

    /// Maps a peer's reset to the outcome of a receiver.
    const fn receiving(reason: Reason) -> Result<(), Self> {
        match reason {
            Reason::NoError => Ok(()),
            Reason::StreamClosed => Err(Self::BrokenPipe),
            // CANCEL too: a proxy sends it when its application has reset the connection.
            r @ (Reason::Cancel | Reason::InternalError | Reason::Refused | Reason::Other(_)) => Err(Self::Reset(r)),
        }
    }

    /// Maps a peer's reset to the error of a sender. `CANCEL` is a loss here too, also when the peer has ended its own half before: a
    /// peer that has said all and wants no more says `NO_ERROR` (RFC 9113, section 8.1).
    const fn sending(reason: Reason) -> Self {
        match reason {
            Reason::NoError | Reason::StreamClosed => Self::BrokenPipe,
            r @ (Reason::Cancel | Reason::InternalError | Reason::Refused | Reason::Other(_)) => Self::Reset(r),
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(e: StreamError) -> Self {
        let kind = match &e {
            StreamError::BrokenPipe => return io::ErrorKind::BrokenPipe.into(),
            StreamError::Reset(_) => io::ErrorKind::ConnectionAborted,
            StreamError::Tunnel(fault) => fault.io_kind(),
        };
        Self::new(kind, e)
    }
}
