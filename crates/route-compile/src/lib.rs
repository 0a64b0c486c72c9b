//! Routes and security policies of Istio and of the Gateway API to the models of a waypoint: functions from objects to tables
//! and policies, and findings about what has no effect. It keeps nothing, watches nothing and sends nothing.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod compile;
mod destination_rule;
mod duration;
mod finding;
mod gateway_api;
mod headers;
mod http_policy;
mod names;
pub mod security;
#[cfg(test)]
mod testing;
mod virtual_service;
mod world;

pub use compile::{Compiled, compile};
pub use destination_rule::{CompiledTraffic, traffic};
pub use finding::{Finding, Reason};
pub use names::{covers, full_host};
pub use world::{Place, Port, Service, World};
