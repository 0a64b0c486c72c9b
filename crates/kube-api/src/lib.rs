//! A typed subset of Kubernetes' and Istio's resources: [`Source`] reads them and reports changes,
//! [`Status`] writes back. It does not know what the resources mean for the mesh.

pub mod address;
mod chunk;
pub mod core;
mod decode;
mod document;
mod event;
pub mod istio;
mod kind;
mod known_kinds;
mod label;
mod locate;
pub mod manifest;
mod merge;
mod meta;
mod mistake;
mod pod_checks;
mod problem;
mod resource;
mod scalar;
mod schema;
mod set_label;
mod source;
pub mod state;
mod status;

pub use event::Event;
pub use kind::{ClusterId, Kind, ObjectRef, UnknownKind};
pub use locate::{Place, locate};
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, StringMap, is_subset};
pub use problem::{Code, InForce, Severity, SourceProblem, Subject, summary};
pub use resource::Resource;
pub use source::disk::ReaderHealth;
pub use source::{DirectoryConfig, Source, SourceError};
pub use status::{Status, StatusError};
