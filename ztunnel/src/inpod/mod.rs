//! The pods this proxy serves: their sockets, and how they come and go.
//! What happens on a connection is `proxy`'s.

pub mod connections;
pub mod manager;
pub mod pod;
pub mod pods;
pub mod sockets;
mod stock;

pub use connections::{ConnectionEntry, Connections};
pub use pod::{Pod, PodInfo};
pub use pods::{PodStatus, Pods, Status};
pub use sockets::{Keepalive, ListenError, Listening, SocketOptions, Sockets};
