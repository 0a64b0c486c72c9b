//! Resources to what discovery sends to node proxies and waypoints: the meaning that the crate `graph` gives to objects, encoded, and as
//! differences from what was sent before. It decides nothing about policies, and opens no socket.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod app_protocol;
mod authorization;
mod canonical;
mod compiler;
mod encode;
mod endpoints;
mod entry;
mod entry_workload;
mod gateway;
mod owner;
mod published;
mod service;
mod waypoints;
mod workload;

pub use compiler::{Compiler, Update};
pub use waypoints::{GatewayName, describe, routes};
