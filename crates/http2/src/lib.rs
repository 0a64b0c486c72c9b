//! HTTP/2 (RFC 9113) and HPACK (RFC 7541) as far as tunnels need them: CONNECT streams with flow control, in both
//! roles. There is no server push, there are no priorities and no trailers of our own. Made for one thread.
//!
//! A [`Connection`] is state only, which users and the driver share. It routes frames to `header_blocks`, `messages`,
//! `data_receiver`, `streams`, `exchanged_settings`, `goaway` and `ping`; a [`Stream`] has its `state`, its `flow_control`
//! and two queues. The [`Engine`] moves the bytes: `reader` finds frames in the input, `batch` and `writer` send the
//! output of `outbox` and the streams, `closing` ends the connection. Only these do I/O.

mod batch;
mod budget;
mod closed_streams;
mod closing;
mod connection;
mod content;
mod data_receiver;
mod engine;
mod error;
mod exchanged_settings;
mod fields;
mod flow_control;
mod frame;
mod goaway;
mod header_blocks;
mod hpack;
mod keepalive;
mod messages;
mod outbox;
mod pending_requests;
mod pending_response;
mod pieces;
mod ping;
mod reader;
mod recv_queue;
mod scheduler;
mod send_queue;
mod settings;
mod state;
mod store;
mod stream;
mod stream_ref;
mod streams;
#[cfg(test)]
mod tests;
mod waiters;
mod writer;

pub use connection::{Connection, GoingAway, Role, Shared};
pub use engine::Engine;
pub use error::{Error, Flood, Reason};
pub use fields::{RequestHead, ResponseHead};
pub use pending_response::PendingResponse;
pub use settings::Settings;
pub use state::Cause;
pub use stream::Stream;
pub use stream_ref::StreamRef;

use error::RecvError;

/// Bytes that one poll of the driver reads before other tasks have their turn.
const POLL_BYTES: usize = 512 << 10;

/// Error codes (RFC 9113, section 7) that are sent for what a peer does wrong.
mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 0x1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub(crate) const STREAM_CLOSED: u32 = 0x5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 0x6;
    pub(crate) const COMPRESSION_ERROR: u32 = 0x9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;
}
