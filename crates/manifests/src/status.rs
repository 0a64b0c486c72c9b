//! Statuses as files: what a writer says of an object is an overlay in the state directory.

use std::path::{Path, PathBuf};

use kube_types::{ObjectRef, Patch, Status, WriteFailure, WriteStatus, Writing};
use serde_json::json;

use crate::state;

/// Writes overlays below `<state>/status/<writer>`.
pub fn status(state: &Path, writer: &str) -> Status {
    Status::new(Overlays { state: state.to_owned(), writer: writer.to_owned() })
}

#[derive(Debug)]
struct Overlays {
    state: PathBuf,
    writer: String,
}

impl WriteStatus for Overlays {
    fn write(&self, key: &ObjectRef, patch: Option<Patch>) -> Writing {
        let path = state::overlay_path(&self.state, &self.writer, key);
        Box::pin(async move {
            let path = path?;
            let write = move || match patch {
                Some(Patch { uid, mut value }) => {
                    if let (Some(uid), Some(value)) = (uid, value.as_object_mut()) {
                        // In the file, too: a reader may see it only after the object was replaced by another of its
                        // name.
                        value.insert("preconditions".to_owned(), json!({ "uid": uid }));
                    }
                    state::write_yaml(&path, &value)
                }
                None => state::remove(&path),
            };
            // The error of a task that panicked or was dropped with the runtime is the writer's.
            // Dropping this future does not stop the write: it replaces the file as a whole or not at all.
            let written = tokio::task::spawn_blocking(write).await.map_err(WriteFailure::from)?;
            written.map_err(WriteFailure::from)
        })
    }
}
