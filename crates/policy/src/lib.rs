//! May this connection be, or this request? Evaluates L4 and L7 policies, says which one decided, and asks again when L4
//! policies change.
//! Finds no policies (see `model::State::policies_of`) and closes no socket.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod connection;
mod decide;
mod evaluate;
pub mod http;
mod registry;
mod trace;

pub use connection::Connection;
pub use decide::{AllowedBy, Decision, DenyReason, Logging, decide};
pub use evaluate::matches;
pub use registry::{ConnectionRegistry, Reevaluation, Registration, Revoked};
pub use trace::{PolicyTrace, RuleTrace, Trace, Unmet, trace};
