//! The CNI plugin of the mesh, chained after the cluster's own (CNI specification 1.1.0). It changes nothing in a pod's network:
//! it asks the node agent, and a pod that is selected for the mesh starts when the agent has proved that it is enrolled.
//!
//! A container runtime runs it anew for each pod. It has no runtime and starts no thread.

pub mod add;
mod api;
mod call;
mod error;
mod journal;
mod network;
pub mod plugin;

pub use call::{Call, Command, PodRef};
pub use error::CniError;
pub use network::Network;
