//! The only way to write about an object: a partial object that every [`crate::Source`] of it lays over it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::kind::ObjectRef;

/// A partial object, for instance `{"metadata": {"annotations": {"a": "b"}}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The only object it is about; `None`: whichever has the key.
    pub uid: Option<String>,
    pub value: Value,
}

/// Failure of a [`WriteStatus`].
pub type WriteFailure = Box<dyn Error + Send + Sync>;

/// A write in progress.
pub type Writing = Pin<Box<dyn Future<Output = Result<(), WriteFailure>> + Send>>;

/// Store of the statuses of one writer, for instance files beside the manifests.
pub trait WriteStatus: fmt::Debug + Send + Sync {
    /// Replaces this writer's patch of an object, or removes it; there need not be one. A reader sees the old one or the
    /// new one.
    fn write(&self, key: &ObjectRef, patch: Option<Patch>) -> Writing;
}

/// Writes the patches of one writer. Patches of several writers are laid in the order of their names; within one writer a
/// new patch replaces the old one of that object.
#[derive(Clone, Debug)]
pub struct Status(Arc<dyn WriteStatus>);

/// A status that was not written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the status of {object}")]
pub struct StatusError {
    pub object: ObjectRef,
    pub source: WriteFailure,
}

impl Status {
    pub fn new(writer: impl WriteStatus + 'static) -> Self {
        Self(Arc::new(writer))
    }

    /// Replaces this writer's patch of `key`.
    pub async fn apply(&self, key: &ObjectRef, value: Value) -> Result<(), StatusError> {
        // Without a uid, also for an object that does not exist yet.
        self.write(key, Some(Patch { uid: None, value })).await
    }

    /// Writes as [`Status::apply`], for the object with this uid only: a later one of the same name does not inherit
    /// the patch.
    pub async fn apply_to(&self, key: &ObjectRef, uid: &str, value: Value) -> Result<(), StatusError> {
        self.write(key, Some(Patch { uid: Some(uid.to_owned()), value })).await
    }

    /// Removes this writer's patch of `key`; there need not be one.
    pub async fn clear(&self, key: &ObjectRef) -> Result<(), StatusError> {
        self.write(key, None).await
    }

    async fn write(&self, key: &ObjectRef, patch: Option<Patch>) -> Result<(), StatusError> {
        self.0.write(key, patch).await.map_err(|source| StatusError { object: key.clone(), source })
    }
}
