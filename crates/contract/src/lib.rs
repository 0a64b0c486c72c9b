//! Names, numbers and types that programs, manifests and the command line agree on: ports, labels and annotations, admin
//! pages, the CNI plugin's request. Nothing here sends, receives or decides.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

pub mod address;
pub mod admin;
pub mod cni;
pub mod codes;
pub mod labels;
pub mod manifests;
pub mod ports;
mod unsupported;

pub use unsupported::Unsupported;
