//! A typed subset of Kubernetes' and Istio's resources, and the [`Event`]s in which a source delivers them. It does not
//! know where the resources come from, nor what they mean for the mesh.

pub mod address;
pub mod core;
mod event;
pub mod istio;
mod kind;
mod kinds;
mod meta;
mod problem;
pub mod resource;

pub use event::Event;
pub use kind::{ClusterId, ObjectRef, UnknownKind};
pub use kinds::{Kind, Resource};
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, StringMap, is_subset};
pub use problem::{Code, InForce, Severity, SourceProblem, Subject, summary};
