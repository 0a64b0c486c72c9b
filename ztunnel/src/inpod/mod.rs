//! The pods this proxy serves: their sockets, their listeners, their state. `enrolment` starts and stops them; `proxy`
//! carries their connections.

pub mod connections;
mod dns;
mod listener;
pub mod pod;
pub mod sockets;
mod spare_sockets;
mod status;

pub use self::dns::{DnsListening, DnsOptions};
pub use connections::{ConnectionEntry, Connections};
pub use listener::{ListenerKind, PodListeners};
pub use pod::{Pod, PodInfo};
pub use sockets::{Keepalive, ListenError, Listening, SocketOptions, Sockets};
pub use status::{PodStatus, Status};
