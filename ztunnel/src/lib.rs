//! The node proxy: carries the connections of a node's pods in mutual TLS.
//!
//! It never sees Kubernetes: pods come from the node agent, everything else from discovery.

pub mod admin;
pub mod budget;
pub mod config;
pub mod discovery;
pub mod enrolment;
pub mod inpod;
pub mod local_xds;
pub mod process;
pub mod proxy;
pub mod workers;
