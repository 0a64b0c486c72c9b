//! Delivers resources and their changes. Where they come from is hidden: what follows a source is the
//! same for a directory and a cluster.

pub(crate) mod disk;
pub(crate) mod file;
mod last_good;
mod ledger;
mod manifests;
pub(crate) mod open;
mod overlay;
mod reader;
mod roots;
mod store;
pub(crate) mod walk;
mod watch;

use std::path::PathBuf;

use tokio::sync::mpsc;

use disk::ReaderHealth;
use kube_types::{ClusterId, Event};
use last_good::Keeping;

/// Events that wait for their reader; the source stops reading files while it is full.
const QUEUE: usize = 1024;

/// The directories that make up the cluster.
#[derive(Clone, Debug)]
pub struct DirectoryConfig {
    /// The user's manifests: directories (searched recursively for `*.yaml`, `*.yml` and `*.json`) or files.
    pub manifests: Vec<PathBuf>,
    /// Derived objects, overlays, and copies of the manifests as they last were good; made when it is not there.
    pub state: PathBuf,
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

/// A stream of [`Event`]s: all that exists, then `InSync`, then changes. Within one batch what was
/// removed comes first, then what applies in the order of keys, then problems.
///
/// A document with a mistake is refused by itself, and its object stays as it was; when the source starts with it, as it
/// was when it last was good. A directory that is gone, or replaced by one without manifests, is a problem and what was
/// read from it stays. A file that is gone from a directory that is still there was deleted. Only regular files of bounded
/// size are read.
#[derive(Debug)]
pub struct Source {
    events: mpsc::Receiver<Event>,
    reader: reader::Handle,
}

impl Source {
    /// Reads a directory and watches it, as the cluster with the default name. The reader ends when
    /// the source is dropped.
    pub fn directory(config: DirectoryConfig) -> Result<Self, SourceError> {
        Self::directory_of(config, ClusterId::default())
    }

    /// As [`Source::directory`], for a cluster of another name.
    pub fn directory_of(config: DirectoryConfig, cluster: ClusterId) -> Result<Self, SourceError> {
        Self::start(config, cluster, Keeping::Read)
    }

    /// As [`Source::directory_of`], and the one that keeps copies of good manifests below `<state>/last-good`, mode
    /// 0600, for every source that starts when a manifest is broken or its directory gone. One per state directory.
    pub fn keeper_of(config: DirectoryConfig, cluster: ClusterId) -> Result<Self, SourceError> {
        Self::start(config, cluster, Keeping::Write)
    }

    fn start(config: DirectoryConfig, cluster: ClusterId, keeping: Keeping) -> Result<Self, SourceError> {
        let (sender, events) = mpsc::channel(QUEUE);
        let reader = reader::start(config, cluster, keeping, sender)?;
        Ok(Self { events, reader })
    }

    /// The next event; `None` when the reader has ended. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// State of the thread that reads the files, for readiness.
    pub fn health(&self) -> ReaderHealth {
        self.reader.health.clone()
    }
}
