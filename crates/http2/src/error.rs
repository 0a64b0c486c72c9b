//! Error codes (RFC 9113, section 7), and how streams and connections fail.

use crate::code;
use std::io;
use std::time::Duration;

/// Error code of RST_STREAM (section 7): those that a proxy sends or has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `NO_ERROR`: nothing more is wanted.
    NoError,
    /// `CANCEL`: the stream is no longer needed.
    Cancel,
    /// `STREAM_CLOSED`.
    StreamClosed,
    /// `INTERNAL_ERROR`.
    InternalError,
    /// `REFUSED_STREAM`: not processed, so that the request may be tried again.
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

/// Reason for which a connection, and all of its streams with it, did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The byte stream failed.
    #[error("{0}")]
    Io(io::Error),
    /// The byte stream ended before HTTP/2 began, or while streams were open.
    #[error("the peer closed the connection unexpectedly")]
    UnexpectedEof,
    /// The peer does what RFC 9113 forbids; `code` is what GOAWAY tells it (section 7).
    #[error("{what} (error code {code:#x})")]
    Violation { what: &'static str, code: u32 },
    /// The peer sends more of something than anybody needs; GOAWAY tells it ENHANCE_YOUR_CALM.
    #[error("the peer sends too many {} (error code 0xb)", .0.code())]
    Flood(Flood),
    /// The peer did not acknowledge a PING in time.
    #[error("no answer to a PING within {0:?}")]
    PingTimeout(Duration),
    /// The engine was dropped while streams were open.
    #[error("the connection was dropped")]
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

    pub(crate) const fn flow_control(what: &'static str) -> Self {
        Self::Violation { what, code: code::FLOW_CONTROL_ERROR }
    }

    /// Returns the error code for GOAWAY, unless the peer is past being told.
    pub(crate) const fn code(&self) -> Option<u32> {
        match self {
            Self::Violation { code, .. } => Some(*code),
            Self::Flood(_) => Some(code::ENHANCE_YOUR_CALM),
            Self::Io(_) | Self::UnexpectedEof | Self::PingTimeout(_) | Self::Dropped => None,
        }
    }

    /// Returns the kind of the byte stream's error, or the kind that comes closest.
    pub fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            Self::PingTimeout(_) => io::ErrorKind::TimedOut,
            Self::Violation { .. } | Self::Flood(_) | Self::Dropped => io::ErrorKind::Other,
        }
    }
}

/// Reason for which a received frame of a stream is not processed.
#[derive(Debug)]
pub(crate) enum RecvError {
    /// Connection error (section 5.4.1).
    Connection(Error),
    /// Stream error: the stream is reset with this code (section 5.4.2).
    Stream { stream_id: u32, code: u32 },
    /// The frame has no effect: the stream is closed, and the frame may have crossed what closed it.
    Ignored,
}

impl From<Error> for RecvError {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}
