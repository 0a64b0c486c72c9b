//! AuthorizationPolicies and RequestAuthentications to what a waypoint evaluates: a function from one object to its typed
//! policy, the targets that it is attached to, and findings. Whether a target exists, and which waypoint serves it, is the
//! caller's knowledge.
//!
//! A value that cannot be evaluated is kept as such in the policy, which then fails closed; see `policy::http`.

mod authorization;
mod condition;
mod list;
mod provider;
mod request_authentication;
mod target;
#[cfg(test)]
mod tests;
mod value;

pub use authorization::authorization_policy;
pub use provider::external_authorizers;
pub use request_authentication::request_authentication;
pub use target::Target;

use crate::finding::Finding;

/// Settings of the mesh that policies depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub trust_domain: String,
    /// Further names of the trust domain: a principal of one of them is a principal of all.
    pub trust_domain_aliases: Vec<String>,
    /// Namespace whose policies are for the whole mesh.
    pub root_namespace: String,
    /// Classes of Gateways that are waypoints of this mesh.
    pub waypoint_classes: Vec<String>,
}

/// A compiled object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached<T> {
    pub value: T,
    /// Empty if nothing that the object names can have a policy.
    pub targets: Vec<Target>,
    /// Sorted by field.
    pub findings: Vec<Finding>,
}
