//! Peers, labs and assertions for end-to-end tests. Everything here runs the real programs; none of the product is faked.

mod any_client_certificate;
pub mod app;
pub mod assert;
pub mod labs;
pub mod manifests;
pub mod pki;
pub mod prerequisites;

pub use assert::eventually;
pub use labs::{Shared, TestLab};
