//! Delta xDS: the half that a node proxy needs and the half that the control plane needs.
//! What the resources mean is not known here: see `model` for the reader's side.

pub mod client;
pub mod server;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;

/// Largest message that either side takes, in bytes: the first answer of a big mesh comes from other servers in one piece.
pub const MAX_MESSAGE_BYTES: usize = 200 * 1024 * 1024;

pub use identity::Caller;
