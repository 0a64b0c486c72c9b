//! Answers DNS questions of the pods of the mesh: names of services from discovery, all others by asking nameservers. It
//! opens no socket: its caller gives it those of a pod, and runs its tasks.

mod aliases;
mod exchange;
mod forward;
mod local;
mod message;
mod network;
mod own_sockets;
mod report;
mod resolv_conf;
mod server;
mod settings;
mod tcp;
mod udp;

pub use network::PodNetwork;
pub use report::Protocol;
pub use resolv_conf::{ResolvConf, ResolvConfError};
pub use server::{Client, FORWARDED_QUESTIONS, Server};
pub use settings::Settings;
pub use tcp::{IDLE_TIMEOUT, serve_tcp};
pub use udp::{Answering, serve_udp};
