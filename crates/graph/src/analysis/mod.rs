//! Comparison of each value, rule and selector of a policy with what exists, to find those that match nothing. It finds
//! and explains; what node proxies enforce is decided in [`crate::authorization`].

mod authorization;
mod peer;
mod ports;
mod principal;
mod rules;
mod subject;
mod values;
mod world;

use std::collections::BTreeMap;

pub(crate) use authorization::{Context, Review, review as authorization};
pub(crate) use peer::review as peer;
pub(crate) use ports::{Fits, PodPorts, Tally};
pub(crate) use rules::Rules;
pub(crate) use subject::review as subject;
pub(crate) use world::{Names, World};

/// Port numbers of a policy, each compared with the ports of the workloads that the policy selects.
pub(crate) type Tallies = BTreeMap<u16, Tally>;

/// A port number that only a Service has: message without the beginning that says what the value is.
fn service_port(port: u16, service: &str, target: u16) -> String {
    format!(
        "{port} is the port of Service {service:?}, which sends to port {target} of its pods, and policies match the pod's port; did you mean {target}?"
    )
}
