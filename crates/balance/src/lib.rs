//! Load balancing of a waypoint: which endpoint takes a request, which ones are ejected because they fail, and how much may
//! run at a time. It opens no connection; time and random numbers come from the caller.
//!
//! There is one [`Balancer`] for each service, port and subset, which all workers share. A choice reads a snapshot and
//! atomic counters, and takes no lock.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod balancer;
mod choose;
mod endpoint;
mod hash_key;
mod levels;
mod limits;
mod load;
mod maglev;
mod outlier;
mod pick;
mod priority;
mod random;
mod ring;
mod snapshot;
#[cfg(test)]
mod testing;
mod warm_up;

pub use balancer::Balancer;
pub use endpoint::{Endpoint, Place};
pub use hash_key::{HashInput, Hashed, hash};
pub use limits::{Limit, Limits, Permit};
pub use outlier::Failure;
pub use pick::{Pick, PickRequest, Refused};
pub use priority::label;
