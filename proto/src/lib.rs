//! Messages of the wire protocols, generated from our own `.proto` files.
//! No behaviour: conversion to checked types is the business of the crate that reads them.
#![allow(unreachable_pub, unused_qualifications, clippy::all)]

/// Workloads and services (`istio.workload`).
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));

    /// Pod enrolment (`istio.workload.zds`).
    pub mod zds {
        include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
    }
}

/// L4 policy (`istio.security`).
pub mod security {
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}

/// Delta discovery (`envoy.service.discovery.v3`); client and server with feature `grpc`.
pub mod discovery {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));
}

/// Certificate service (`istio.v1.auth`); client and server with feature `grpc`.
pub mod auth {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}

/// Type URL of [`workload::Address`].
pub const ADDRESS_TYPE_URL: &str = "type.googleapis.com/istio.workload.Address";
/// Type URL of [`security::Authorization`].
pub const AUTHORIZATION_TYPE_URL: &str = "type.googleapis.com/istio.security.Authorization";
