//! Peers, labs and assertions for end-to-end tests. What it offers runs real programs; it fakes none of ours.

pub mod app;
pub mod assert;
mod credulous;
pub mod labs;
pub mod manifests;
pub mod pki;
pub mod prerequisites;

pub use assert::eventually;
pub use labs::{Shared, TestLab};
