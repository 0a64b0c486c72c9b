//! The path of a connection, in six named steps: [`capture`], [`resolve`], [`authorise`], [`dial`],
//! [`relay`], [`report`]. [`outbound`], [`inbound`] and [`plaintext`] put them in order for the three
//! listeners. Which worker does it is `workers`' matter.

pub mod authorise;
pub mod capture;
mod connection;
mod context;
pub mod dial;
mod failure;
mod foreign;
mod guarded;
pub mod inbound;
mod live;
pub mod outbound;
mod pairs;
pub mod plaintext;
mod proxy_header;
pub mod relay;
pub mod report;
pub mod resolve;
mod shared;

pub use connection::Connection;
pub use context::{
    HANDSHAKES, POD_HANDSHAKES, POD_TUNNELS, PodContext, SOURCE_HANDSHAKES, SOURCE_TUNNELS, WorkerContext,
};
pub use failure::Failure;
pub use foreign::Foreign;
pub use live::Live;
pub use pairs::{Description, Pairs};
pub use shared::Shared;
