//! The waypoint: an L7 proxy for the services of a namespace or for some of them. Clients' node proxies bring it the
//! connections of their applications; it decides about each request, and sends it to an endpoint through that one's node proxy.
//!
//! It never sees Kubernetes: workloads and services come from discovery, routes and policies from `waypoint_config`.

pub mod config;
pub mod context;
pub mod dump;
pub mod http;
pub mod inner;
pub mod keys;
pub mod process;
pub mod report;
pub mod tcp;
pub mod tunnel;
pub mod upstream;
pub mod workers;
