//! Loads, attaches, pins, replaces and verifies the kernel programs. It decides nothing: which pod
//! is enrolled when, its routes and its rules are the agent's.
//!
//! Everything belongs to one pair of a cgroup root and a directory on bpffs: agents of several nodes
//! on one kernel do not meet. What is pinned works on without this process, and the next
//! [`Steering::open`] takes it over: links are updated in place, so no connection notices.
//!
//! The calls block for as long as the kernel takes (loading a program: 1 to 30 ms); call them off
//! the threads of an asynchronous runtime.

mod cgroup;
mod check;
mod cost;
mod error;
mod instance;
mod kernel;
mod link;
mod listeners;
mod locals;
mod log;
mod map;
mod object;
pub mod observe;
mod pins;
pub mod probe;
mod remains;
mod steering;
mod survey;
mod unload;
mod verify;

pub use check::Check;
pub use cost::PacketCost;
pub use error::LoadError;
pub use listeners::{CaughtUp, Listener};
pub use locals::AgedLocals;
pub use log::KernelLog;
pub use steering::{Config, Steering, Swept};
pub use survey::Survey;
pub use unload::remove_other_layouts;
