//! The control plane: reads resources, serves discovery and certificates to node proxies, writes back
//! what of the policies is enforced. It never talks to a node's kernel.

mod acks;
mod admin;
mod certificates;
mod conditions;
pub mod config;
mod debug;
mod discovery;
mod events;
mod pipeline;
mod proxies;
mod replicas;
mod reports;
mod server;
mod source;
#[cfg(test)]
mod testing;
mod waypoints;

pub use config::{Config, Flags};
pub use server::{Control, StartError};
pub use source::{SourceConfig, permissions};
