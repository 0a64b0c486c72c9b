//! HTTP/2 (RFC 9113) as far as tunnels need it: CONNECT streams with flow control, both roles. No push, no priorities,
//! no trailers of our own. Made for one thread.
//!
//! `reader` finds frames, `connection` is what they mean, `stream` one stream of it, `state` the state of that, `batch`
//! what goes out, and `engine` moves the bytes, with `writer` and `closing`. Only these do I/O.

mod batch;
mod closing;
mod connection;
mod engine;
mod error;
mod fields;
mod frame;
mod hpack;
mod keepalive;
mod pending_response;
mod pieces;
mod reader;
mod settings;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use connection::{Connection, GoingAway, Role, Shared};
pub use engine::Engine;
pub use error::{Error, Flood, Reason};
pub use fields::{RequestHead, ResponseHead};
pub use pending_response::PendingResponse;
pub use settings::Settings;
pub use state::Cause;
pub use stream::{Stream, StreamRef};

use connection::BLOCKS_PER_LIST;

/// What one turn reads before others have theirs, bytes.
const POLL_BYTES: usize = 512 << 10;

/// Error codes (RFC 9113, section 7) that are sent for what a peer does wrong.
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(crate) const STREAM_CLOSED: u32 = 0x5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;
}
