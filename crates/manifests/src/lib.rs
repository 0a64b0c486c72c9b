//! A directory of manifests as a source of resources: [`open`] reads it and reports changes, [`status()`] writes back,
//! [`load_directory`] reads it once, [`set_label()`] edits it and [`locate()`] finds lines in it. It does not know what the
//! resources mean for the mesh.

mod authorization_values;
mod chunk;
mod decode;
mod document;
mod known_kinds;
mod label;
mod load;
mod locate;
mod merge;
mod mistake;
mod pod_checks;
mod scalar;
mod schema;
mod set_label;
mod source;
pub mod state;
mod status;

pub use load::{Loaded, Manifests, load_directory};
pub use locate::{Place, locate};
pub use set_label::{LabelChange, LabelError, Labelled, set_label};
pub use source::{DirectoryConfig, LastGoodCopies, SourceError, open};
pub use status::status;
