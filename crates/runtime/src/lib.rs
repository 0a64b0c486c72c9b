//! Parts that every program needs and no protocol owns: collected configuration errors, drain,
//! signals, back-off, and the few system calls that have no safe wrapper elsewhere.
//! Nothing here knows of workloads, tunnels or policies.

pub mod backoff;
pub mod budget;
pub mod collections;
pub mod debounce;
pub mod drain;
#[cfg(feature = "mimalloc")]
pub mod memory;
pub mod problems;
pub mod signals;
pub mod sys;

pub use backoff::Backoff;
pub use budget::{Budget, Permit};
pub use debounce::{Burst, Debounce};
pub use problems::{Problem, Problems};
