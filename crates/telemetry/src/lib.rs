//! Telemetry of a program of the mesh: log lines, metrics, readiness, and the HTTP server that shows them.
//! Knows nothing of workloads or policies: labels and fields come from the caller.

pub mod access;
mod direction;
pub mod http;
pub mod logging;
pub mod metrics;
mod protocol;
pub mod readiness;

pub use direction::Direction;
pub use protocol::Protocol;
