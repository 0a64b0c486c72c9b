//! The mesh on two nodes of this machine: real pods, real kernel programs, real proxies, the wire recorded.
//! A file per part of the promise; tests of one file share a lab where they do not disturb each other.

mod certificates;
mod commands;
mod demo;
mod discovery;
mod discovery_faults;
mod dns;
mod drain;
mod drift;
mod faults;
mod interposed;
mod kernel_state;
mod manifests;
mod mistakes;
mod new_pods;
mod nonsense;
mod plain;
mod probes;
mod questions;
mod relay;
mod self_calls;
mod shapes;
mod story;
mod traffic;
mod unannounced;
mod waiting;
mod waypoint;
