//! The node proxy: carries the connections of a node's pods in mutual TLS.
//!
//! It never sees Kubernetes: pods come from the node agent, everything else from discovery.

pub mod admin;
pub mod config;
pub mod enrolment;
pub mod inpod;
pub mod process;
pub mod proxy;
pub mod workers;
