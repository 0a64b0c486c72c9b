//! HTTP/2 (RFC 9113) as far as tunnels need it: CONNECT streams with flow control, both roles. No push, no priorities,
//! no trailers of our own. Made for one thread.
//!
//! `reader` finds frames, `connection` is what they mean, `stream` one stream of it, `batch` what goes out,
//! and `engine` moves the bytes. Only `engine` does I/O.

mod batch;
mod connection;
mod engine;
mod fields;
mod frame;
mod reader;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use connection::{Connection, Role, Shared};
pub(crate) use engine::Engine;
pub(crate) use fields::{Asked, Head};
pub(crate) use stream::{Closed, Line, State};

use std::io;

/// Error codes (RFC 9113, section 7) that are sent for what a peer does wrong.
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(crate) const STREAM_CLOSED: u32 = 0x5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// Why a tunnel is over, for all of its streams.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The byte stream failed.
    #[error("{0}")]
    Io(io::Error),
    /// The byte stream ended while streams were open.
    #[error("the peer closed the connection before its streams had ended")]
    Cut,
    /// The peer does what RFC 9113 forbids, or too much; `code` is what it was told (section 7).
    #[error("{what} (error code {code:#x})")]
    Violation { what: &'static str, code: u32 },
    /// The answer to a PING did not come.
    #[error("no answer to a ping")]
    Silent,
    /// Nobody drives the tunnel any more.
    #[error("the tunnel was given up")]
    Dropped,
}

impl Fault {
    const fn protocol(what: &'static str) -> Self {
        Self::Violation { what, code: code::PROTOCOL_ERROR }
    }

    /// What the byte stream said, or a kind that fits.
    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Io(e) => e.kind(),
            Self::Cut => io::ErrorKind::UnexpectedEof,
            Self::Silent => io::ErrorKind::TimedOut,
            Self::Violation { .. } | Self::Dropped => io::ErrorKind::Other,
        }
    }
}
