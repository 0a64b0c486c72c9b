//! A typed subset of the resources of Kubernetes, Istio and the Gateway API, the [`Source`] that delivers them and the [`Status`] that writes
//! about them. It does not know where the resources are kept, nor what they mean for the mesh.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod address;
mod code;
pub mod core;
mod custom_resource;
mod event;
pub mod gateway;
pub mod istio;
mod kind;
mod kinds;
mod meta;
mod problem;
pub mod resource;
pub mod similar;
mod source;
mod status;
pub mod wording;

pub use code::{Code, CodeEntry};
pub use custom_resource::{SchemaError, custom_resources};
pub use event::Event;
pub use kind::{ClusterId, ObjectRef, UnknownKind};
pub use kinds::{Kind, Resource};
pub use meta::{LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference, StringMap, is_subset};
pub use problem::{InForce, Severity, SourceProblem, Subject, summary};
pub use source::{Health, Source};
pub use status::{Patch, Status, StatusError, WriteFailure, WriteStatus, Writing};
