//! Meaning of Kubernetes resources for the mesh: which pods belong to it, which policy selects which workload, how each
//! policy is enforced, and findings about what has no effect. It opens no socket and reads no file.

mod analysis;
mod app_protocol;
mod authorization;
mod delivery;
mod encode;
mod enforcement;
pub mod enrolment;
mod finding;
mod graph;
mod mesh;
mod owner;
mod peer_authentication;
mod placement;
mod pods;
mod selectors;
mod service;
mod unsupported;
mod workload;

pub use delivery::{Delivery, Missing};
pub use enforcement::{ENFORCED, PolicyState};
pub use finding::{Finding, Reason, Severity};
pub use graph::{Graph, Update};
pub use mesh::Mesh;
pub use placement::{Placement, Scope};
pub use pods::{Pods, PublishedPods};
