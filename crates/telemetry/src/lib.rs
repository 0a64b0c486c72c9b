//! What a program of the mesh tells about itself: log lines, metrics, readiness, and the HTTP server that shows them.
//! Knows nothing of workloads or policies: labels and fields come from the caller.

pub mod access;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod readiness;
