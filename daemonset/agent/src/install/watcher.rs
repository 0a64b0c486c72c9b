//! Notifications of changes in the directories of the installation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::Installation;

/// Wakes the installer as long as it lives.
pub(super) struct Watcher {
    _watcher: RecommendedWatcher,
    is_whole: Arc<AtomicBool>,
}

impl Watcher {
    /// Watches all directories. `None`, and a warning, when one of them cannot be watched: changes are noticed later then.
    pub(super) fn start(installation: &Installation, changed: &Arc<Notify>) -> Option<Self> {
        let (wake, is_whole) = (changed.clone(), Arc::new(AtomicBool::new(true)));
        let whole = is_whole.clone();
        let started = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Ok(event) if is_read(event.kind) => {}
            Ok(_) => wake.notify_one(),
            Err(_) => {
                whole.store(false, Ordering::Release);
                wake.notify_one();
            }
        });
        let watched = started.and_then(|mut watcher| {
            for directory in installation.directories() {
                watcher.watch(directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        match watched {
            Ok(watcher) => Some(Self { _watcher: watcher, is_whole }),
            Err(error) => {
                tracing::warn!(%error, "failed to watch the CNI directories; changes are noticed within {:?}", super::RECHECK);
                None
            }
        }
    }

    /// Nothing was lost so far.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }
}

/// Reading and opening are no changes.
fn is_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
