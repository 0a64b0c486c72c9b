//! Meaning of Kubernetes resources for the mesh: which pods belong to it, which policy selects which workload, how each
//! policy is enforced, and findings about what has no effect. It opens no socket, reads no file, and knows no wire format:
//! the crate `compile` encodes the result.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod addresses;
mod allocation;
mod analysis;
mod authorization;
mod binding;
mod delivery;
mod enforcement;
pub mod enrolment;
mod entry_findings;
mod finding;
mod graph;
mod kinds;
mod locality;
mod mesh;
mod mesh_config;
pub mod outcome;
mod peer_authentication;
mod placement;
mod pods;
mod resolved;
pub mod rule;
mod selectors;
mod status;
mod target_port;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod unsupported;
mod waypoint;
mod wish;

pub use delivery::{Delivery, Missing};
pub use enforcement::PolicyState;
pub use finding::{Finding, Reason, ReasonEntry, Severity};
pub use graph::{Graph, Update};
pub use kinds::KINDS;
pub use locality::Locality;
pub use mesh::Mesh;
pub use mesh_config::MESH_CONFIG_MAP;
pub use outcome::ENFORCED;
pub use placement::{Placement, Scope};
pub use pods::{Pods, PublishedPods};
pub use resolved::{
    Endpoints, EntryEndpoint, EntryHost, EntryServices, EntryWorkload, MeshService, Resolved, SelectedEntry,
    Visibility, Workload,
};
pub use status::{CONDITION_TYPES, ObjectStatus};
pub use target_port::{entry_port_of_pod, entry_target, target_port};
pub use waypoint::{GatewayAddress, UNAVAILABLE_WAYPOINT, WAYPOINT_PORT, Waypoints};
