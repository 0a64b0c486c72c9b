//! A typed subset of Kubernetes' and Istio's resources: [`Source`] reads them and tells changes,
//! [`Status`] reports back. What the resources mean for the mesh is the business of others.

pub mod core;
mod decode;
mod document;
mod event;
mod fields;
pub mod istio;
mod kind;
mod label;
mod locate;
pub mod manifest;
mod merge;
mod meta;
mod mistake;
mod resource;
mod source;
pub mod state;
mod status;

pub use event::{Event, InForce, Severity, SourceProblem};
pub use kind::{ClusterId, Kind, ObjectRef, UnknownKind};
pub use locate::{Place, locate};
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, StringMap, is_subset};
pub use resource::Resource;
pub use source::{DirectoryConfig, Source, SourceError};
pub use status::{Status, StatusError};
