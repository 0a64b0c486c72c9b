//! Reads directories of manifests and delivers what is in them as a [`Source`].

pub(crate) mod disk;
pub(crate) mod file;
mod last_good;
mod ledger;
mod manifests;
mod overlay;
pub(crate) mod read_file;
mod reader;
mod roots;
mod store;
pub(crate) mod walk;
mod watch;

use std::path::PathBuf;

use tokio::sync::mpsc;

pub use last_good::LastGoodCopies;

use kube_types::{ClusterId, Health, Source};

/// Events that wait for their reader; the source stops reading files while it is full.
const QUEUE: usize = 1024;

/// The directories that make up the cluster.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The user's manifests: directories (searched recursively for `*.yaml`, `*.yml` and `*.json`) or files.
    pub manifests: Vec<PathBuf>,
    /// Derived objects, overlays, and copies of the manifests as they last were good; made when it is not there.
    pub state: PathBuf,
    /// The cluster that its events name.
    pub cluster: ClusterId,
    pub last_good: LastGoodCopies,
}

impl DirectoryConfig {
    /// The cluster with the default name, whose copies another program writes.
    pub fn new(manifests: Vec<PathBuf>, state: PathBuf) -> Self {
        Self { manifests, state, cluster: ClusterId::default(), last_good: LastGoodCopies::Read }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("failed to read {path}")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("failed to watch {path} for changes")]
    Watch { path: PathBuf, source: notify::Error },
    #[error("failed to start the thread that reads manifests")]
    Thread(#[source] std::io::Error),
}

/// Reads directories and watches them. The reader ends when the source is dropped.
///
/// A document with a mistake is refused by itself, and its object stays as it was; when the source starts with it, as it
/// was when it last was good. A directory that is gone, or replaced by one without manifests, is a problem and what was
/// read from it stays. A file that is gone from a directory that is still there was deleted. Only regular files of bounded
/// size are read.
pub fn open(config: DirectoryConfig) -> Result<Source, SourceError> {
    let (sender, events) = mpsc::channel(QUEUE);
    let reader = reader::start(config, sender)?;
    // A clone, since the source owns the reader, whose `Drop` ends its thread.
    let health = reader.health.clone();
    Ok(Source::new(events, Health::new(move || health.is_well()), reader))
}
