//! Discovery from a local file, read again when it changes. A file with a mistake changes nothing.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use model::Change;
use runtime::drain::Watch;
use tracing::{info, warn};

use super::{
    Updates,
    local_mesh::{KnownNames, LocalMesh, LocalMeshError},
};
use crate::config::LocalXds;

/// Pause between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not readable.
    #[error("{path}: {error}")]
    Read {
        path: PathBuf,
        #[source]
        error: std::io::Error,
    },
    /// Readable and wrong.
    #[error(transparent)]
    Parse(#[from] LocalMeshError),
}

/// A file that was read.
pub(super) struct Local {
    path: PathBuf,
    seen: Option<Stamp>,
    known: KnownNames,
    updates: Updates,
}

/// A change of the file changes this.
type Stamp = (SystemTime, u64);

impl Local {
    pub(super) async fn read(source: &LocalXds, updates: Updates) -> Result<Self, FileError> {
        let mut local = Self { path: PathBuf::new(), seen: None, known: KnownNames::default(), updates };
        match source {
            LocalXds::Inline(yaml) => local.apply(yaml)?,
            LocalXds::Path(path) => {
                local.path.clone_from(path);
                // Before the content is read: a change in between is read again, not missed.
                local.seen = stamp(path).await.ok();
                local.load().await?;
            }
        }
        Ok(local)
    }

    /// Reads the file again whenever it changes, until the drain begins.
    pub(super) async fn follow(&mut self, mut drain: Watch) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = drain.started() => return,
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let now = stamp(&self.path).await.ok();
        // A file that is not there is being replaced by another one, or was removed by mistake: what it said stays in
        // force.
        if now.is_none() || now == self.seen {
            return;
        }
        // Also when the content has a mistake: it is reported once, not every second.
        self.seen = now;
        match self.load().await {
            Ok(()) => info!(path = %self.path.display(), "local discovery file read again"),
            Err(error) => warn!(%error, "failed to apply the changed local discovery file; keeping the old content"),
        }
    }

    async fn load(&mut self) -> Result<(), FileError> {
        let read = tokio::fs::read_to_string(&self.path).await;
        let yaml = read.map_err(|error| FileError::Read { path: self.path.clone(), error })?;
        self.apply(&yaml)
    }

    fn apply(&mut self, yaml: &str) -> Result<(), FileError> {
        let changes = LocalMesh::parse(yaml)?.into_changes(&mut self.known);
        let (policies, gone): (Vec<_>, Vec<_>) =
            changes.policies.into_iter().partition(|change| matches!(change, Change::Upsert(_)));
        // A policy goes after the workloads that named it.
        self.updates.authorizations(policies);
        self.updates.addresses(changes.addresses);
        if !gone.is_empty() {
            self.updates.authorizations(gone);
        }
        Ok(())
    }
}

async fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = tokio::fs::metadata(path).await?;
    // The length as well: two writes may fall into one tick of the file system's clock.
    Ok((metadata.modified()?, metadata.len()))
}
