//! Error codes, and how a connection fails.

use crate::code;
use std::io;
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

impl From<u32> for Reason {
    fn from(code: u32) -> Self {
        match code {
            0x0 => Self::NoError,
            0x2 => Self::InternalError,
            0x5 => Self::StreamClosed,
            0x7 => Self::Refused,
            0x8 => Self::Cancel,
            other => Self::Other(other),
        }
    }
}

impl From<Reason> for u32 {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NoError => 0x0,
            Reason::InternalError => 0x2,
            Reason::StreamClosed => 0x5,
            Reason::Refused => 0x7,
            Reason::Cancel => 0x8,
            Reason::Other(code) => code,
        }
    }
}

/// Something that a peer sends too much of. Each costs the peer less than us (RFC 9113, section 10.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Requests that are reset before they are answered, and streams that we have to reset.
    Resets,
    /// Bytes of header lists after decompression, or one header block that is too long.
    HeaderBytes,
    /// SETTINGS.
    Settings,
    /// PING.
    Pings,
    /// DATA and CONTINUATION that carry nothing.
    EmptyFrames,
    /// WINDOW_UPDATE that no DATA was sent for.
    WindowUpdates,
    /// Frames without effect: PRIORITY, types that are not known, frames for closed streams.
    IgnoredFrames,
}

impl Flood {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Resets,
        Self::HeaderBytes,
        Self::Settings,
        Self::Pings,
        Self::EmptyFrames,
        Self::WindowUpdates,
        Self::IgnoredFrames,
    ];

    /// Stable name of the kind, for metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::HeaderBytes => "header_bytes",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::EmptyFrames => "empty_frames",
            Self::WindowUpdates => "window_updates",
            Self::IgnoredFrames => "ignored_frames",
        }
    }
}

/// Why a tunnel is over, for all of its streams.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The byte stream failed.
    #[error("{0}")]
    Io(io::Error),
    /// The byte stream ended before HTTP/2 began, or while streams were open.
    #[error("the peer closed the connection too soon")]
    Cut,
    /// The peer does what RFC 9113 forbids; `code` is what it was told (section 7).
    #[error("{what} (error code {code:#x})")]
    Violation { what: &'static str, code: u32 },
    /// The peer sends more of something than anybody needs; it was told ENHANCE_YOUR_CALM.
    #[error("the peer sends too many {} (error code 0xb)", .0.code())]
    Flood(Flood),
    /// The answer to a PING did not come in time.
    #[error("no answer to a ping within {0:?}")]
    PingTimeout(Duration),
    /// Nobody drives the tunnel any more.
    #[error("the tunnel was given up")]
    Dropped,
}

impl Error {
    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::Violation { what, code: code::PROTOCOL_ERROR }
    }

    pub(crate) const fn frame_size(what: &'static str) -> Self {
        Self::Violation { what, code: code::FRAME_SIZE_ERROR }
    }

    pub(crate) const fn stream_closed(what: &'static str) -> Self {
        Self::Violation { what, code: code::STREAM_CLOSED }
    }

    /// Error code that the peer is told in GOAWAY, if it is to be told one.
    pub(crate) const fn code(&self) -> Option<u32> {
        match self {
            Self::Violation { code, .. } => Some(*code),
            Self::Flood(_) => Some(code::ENHANCE_YOUR_CALM),
            Self::Io(_) | Self::Cut | Self::PingTimeout(_) | Self::Dropped => None,
        }
    }

    /// What the byte stream said, or a kind that fits.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(e) => e.kind(),
            Self::Cut => io::ErrorKind::UnexpectedEof,
            Self::PingTimeout(_) => io::ErrorKind::TimedOut,
            Self::Violation { .. } | Self::Flood(_) | Self::Dropped => io::ErrorKind::Other,
        }
    }
}
