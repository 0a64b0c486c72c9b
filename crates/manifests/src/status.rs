//! The only way to write about an object: a partial object that every [`crate::Source`] lays over it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::state::{self, WriteError};
use kube_types::ObjectRef;

/// Writes the overlays of one writer. Overlays of several writers are laid in the order of their
/// names; within one writer a new overlay replaces the old one of that object.
#[derive(Clone, Debug)]
pub struct Status {
    state: PathBuf,
    writer: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("writing the status of {0} was interrupted")]
    Interrupted(ObjectRef),
}

impl Status {
    /// Overlays below `<state>/status/<writer>`.
    pub fn directory(state: &Path, writer: &str) -> Self {
        Self { state: state.to_owned(), writer: writer.to_owned() }
    }

    /// Replaces this writer's overlay of `key`, for instance
    /// `{"metadata": {"annotations": {"a": "b"}}}`. Atomic: a reader sees the old one or the new one.
    pub async fn apply(&self, key: &ObjectRef, patch: Value) -> Result<(), StatusError> {
        let path = state::overlay_path(&self.state, &self.writer, key)?;
        blocking(key, move || state::write_yaml(&path, &patch)).await
    }

    /// As [`Status::apply`], for the object with this uid only: a later one of the same name does not inherit the patch.
    pub async fn apply_to(&self, key: &ObjectRef, uid: &str, mut patch: Value) -> Result<(), StatusError> {
        if let Some(patch) = patch.as_object_mut() {
            patch.insert("preconditions".to_owned(), json!({ "uid": uid }));
        }
        self.apply(key, patch).await
    }

    /// Removes this writer's overlay of `key`; there need not be one.
    pub async fn clear(&self, key: &ObjectRef) -> Result<(), StatusError> {
        let path = state::overlay_path(&self.state, &self.writer, key)?;
        blocking(key, move || state::remove(&path)).await
    }
}

async fn blocking<F>(key: &ObjectRef, work: F) -> Result<(), StatusError>
where
    F: FnOnce() -> Result<(), WriteError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StatusError::Interrupted(key.clone())),
    }
}
