//! Messages of the wire protocols, generated from our own `.proto` files, and the constants that both sides of a protocol
//! must agree on. No behaviour: conversion to checked types is the business of the crate that reads them.

/// Workloads and services (`istio.workload`).
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));

    /// Pod enrolment (`istio.workload.zds`).
    pub mod zds {
        include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
    }
}

/// L4 policy (`istio.security`).
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod security {
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}

/// Delta discovery (`envoy.service.discovery.v3`); client and server with feature `grpc`.
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// State of the clients of discovery (`envoy.service.status.v3`).
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod status {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.status.v3.rs"));
}

/// Certificate service (`istio.v1.auth`); client and server with feature `grpc`.
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod auth {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}

/// Configuration of waypoints (`strake.waypoint.v1`).
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod waypoint {
    include!(concat!(env!("OUT_DIR"), "/strake.waypoint.v1.rs"));
}

/// Acknowledgements that replicas of the control plane tell each other (`strake.replica.v1`); client and server with feature
/// `grpc`.
#[allow(unreachable_pub, unused_qualifications, clippy::all)]
pub mod replica {
    include!(concat!(env!("OUT_DIR"), "/strake.replica.v1.rs"));
}

mod change;
pub mod snapshot;

pub use change::Change;

/// Type URL of [`workload::Address`].
pub const ADDRESS_TYPE_URL: &str = "type.googleapis.com/istio.workload.Address";
/// Type URL of [`security::Authorization`].
pub const AUTHORIZATION_TYPE_URL: &str = "type.googleapis.com/istio.security.Authorization";
/// Type URL of [`waypoint::Resource`].
pub const WAYPOINT_TYPE_URL: &str = "type.googleapis.com/strake.waypoint.v1.Resource";

/// Type of pages about the server, by name; those below it, such as `istio.io/debug/syncz`, have messages of their own.
pub const DEBUG_TYPE: &str = "istio.io/debug";
/// Type URL of [`status::ClientConfig`].
pub const CLIENT_CONFIG_TYPE_URL: &str = "type.googleapis.com/envoy.service.status.v3.ClientConfig";

/// Largest discovery message that either side accepts, in bytes: other servers send the whole first answer of a large mesh
/// in one message.
pub const MAX_MESSAGE_BYTES: usize = 200 * 1024 * 1024;

/// Key of [`auth::IstioCertificateRequest::metadata`] under which a node proxy names the identity that it requests.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
