//! The pods this proxy serves: their sockets and listeners, and what is known of them. How they come and go is
//! `enrolment`'s; what happens on a connection is `proxy`'s.

pub mod connections;
mod listener;
pub mod pod;
pub mod sockets;
mod status;
mod stock;

pub use connections::{ConnectionEntry, Connections};
pub use listener::ListenerKind;
pub use pod::{Pod, PodInfo};
pub use sockets::{Keepalive, ListenError, Listening, SocketOptions, Sockets};
pub use status::{PodStatus, Status};
