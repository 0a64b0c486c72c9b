//! How tunnels and streams end, in words that do not name the engine.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a stream is reset: the HTTP/2 error codes that a proxy uses or has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `NO_ERROR`: nothing more to say.
    NoError,
    /// `CANCEL`: no longer wanted.
    Cancel,
    /// `STREAM_CLOSED`.
    StreamClosed,
    /// `INTERNAL_ERROR`.
    InternalError,
    /// `REFUSED_STREAM`: not processed, may be tried again.
    Refused,
    /// Any other code, as on the wire.
    Other(u32),
}

impl From<h2::Reason> for Reason {
    fn from(r: h2::Reason) -> Self {
        match r {
            h2::Reason::NO_ERROR => Self::NoError,
            h2::Reason::CANCEL => Self::Cancel,
            h2::Reason::STREAM_CLOSED => Self::StreamClosed,
            h2::Reason::INTERNAL_ERROR => Self::InternalError,
            h2::Reason::REFUSED_STREAM => Self::Refused,
            other => Self::Other(other.into()),
        }
    }
}

impl From<Reason> for h2::Reason {
    fn from(r: Reason) -> Self {
        match r {
            Reason::NoError => Self::NO_ERROR,
            Reason::Cancel => Self::CANCEL,
            Reason::StreamClosed => Self::STREAM_CLOSED,
            Reason::InternalError => Self::INTERNAL_ERROR,
            Reason::Refused => Self::REFUSED_STREAM,
            Reason::Other(code) => Self::from(code),
        }
    }
}

/// A tunnel could not be made, or ended otherwise than by agreement.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TunnelError {
    /// The peer does not speak HTTP/2, or ended during its handshake.
    #[error("http2 handshake failed: {0}")]
    Handshake(Arc<h2::Error>),
    /// HTTP/2 failed later.
    #[error("h2 failed: {0}")]
    Protocol(Arc<h2::Error>),
    /// The peer's answer to a PING did not come.
    #[error("no answer to a ping within {0:?}")]
    PingTimeout(Duration),
}

impl TunnelError {
    /// Stable name of the case, for metrics and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Handshake(_) => "h2_handshake",
            Self::Protocol(_) => "h2",
            Self::PingTimeout(_) => "ping_timeout",
        }
    }
}

/// A stream could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The peer answered, but not with 200.
    #[error("http status: {0}")]
    Status(http::StatusCode),
    /// The tunnel or the stream ended before an answer came.
    #[error("h2 failed: {0}")]
    Protocol(Arc<h2::Error>),
    /// The authority cannot be sent.
    #[error("invalid CONNECT address {0}")]
    Authority(String),
}

impl ConnectError {
    /// Stable name of the case, for metrics and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Status(_) => "http_status",
            Self::Protocol(_) => "h2",
            Self::Authority(_) => "authority",
        }
    }

    /// Whether nothing was processed, so that another tunnel may be tried.
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Protocol(e) => e.is_go_away() || e.reason() == Some(h2::Reason::REFUSED_STREAM),
            Self::Status(_) | Self::Authority(_) => false,
        }
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
    Tunnel(h2::Error),
}

impl StreamError {
    /// How an error met while receiving ends the stream; `None` is an ordinary end.
    pub(crate) fn receiving(e: h2::Error) -> Option<Self> {
        if e.is_io() || !e.is_reset() {
            return Some(Self::Tunnel(e));
        }
        match e.reason().map(Reason::from) {
            Some(Reason::NoError) => None,
            Some(Reason::StreamClosed) => Some(Self::BrokenPipe),
            // Also CANCEL: it is what a proxy's stream ends with whose application was reset.
            Some(r @ (Reason::Cancel | Reason::InternalError | Reason::Refused | Reason::Other(_))) => {
                Some(Self::Reset(r))
            }
            None => Some(Self::Tunnel(e)),
        }
    }

    /// How a sender sees the peer's reset.
    pub(crate) fn reset(reason: Reason) -> Self {
        match reason {
            Reason::NoError | Reason::Cancel | Reason::StreamClosed => Self::BrokenPipe,
            r @ (Reason::InternalError | Reason::Refused | Reason::Other(_)) => Self::Reset(r),
        }
    }

    /// The error to return for one met while sending.
    pub(crate) fn sending(e: h2::Error) -> Self {
        match e.reason().map(Reason::from) {
            Some(Reason::NoError | Reason::Cancel | Reason::StreamClosed) => Self::BrokenPipe,
            Some(r @ (Reason::InternalError | Reason::Refused | Reason::Other(_))) if e.is_reset() => Self::Reset(r),
            Some(_) | None => Self::Tunnel(e),
        }
    }
}

impl From<StreamError> for io::Error {
    fn from(e: StreamError) -> Self {
        match e {
            StreamError::BrokenPipe => io::ErrorKind::BrokenPipe.into(),
            StreamError::Reset(_) => io::Error::new(io::ErrorKind::ConnectionAborted, e),
            StreamError::Tunnel(h2) if h2.is_io() => {
                let text = h2.to_string();
                h2.into_io().unwrap_or_else(|| io::Error::other(text))
            }
            StreamError::Tunnel(h2) => io::Error::other(StreamError::Tunnel(h2)),
        }
    }
}
