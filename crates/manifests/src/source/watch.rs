//! Notifications of the file system, for the reader's thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use notify::RecommendedWatcher;
use notify::event::{AccessKind, AccessMode, EventKind};

/// Notifications that wait for the reader. When full, the reader looks at everything instead.
const NOTIFICATIONS: usize = 4096;

/// Signal for the reader.
#[derive(Debug)]
pub(super) enum Signal {
    Changed(PathBuf),
    Stop,
}

pub(super) fn queue() -> (SyncSender<Signal>, Receiver<Signal>) {
    sync_channel(NOTIFICATIONS)
}

/// Watches nothing yet. `overflow` is set when a notification was lost.
pub(super) fn watcher(signals: SyncSender<Signal>, overflow: Arc<AtomicBool>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |result: notify::Result<notify::Event>| {
        let lost = match result {
            Ok(event) if event.need_rescan() => true,
            Ok(event) if is_read(&event.kind) => false,
            // `try_send`: the watcher's thread must not wait, or the kernel's queue overflows in its place.
            Ok(event) => event.paths.into_iter().any(|path| signals.try_send(Signal::Changed(path)).is_err()),
            Err(error) => {
                tracing::warn!(%error, "failed to watch for changes; reading everything again");
                true
            }
        };
        if lost {
            overflow.store(true, Ordering::Release);
            // Wakes the reader; when this fails too the queue is full and it is awake.
            let _ = signals.try_send(Signal::Changed(PathBuf::new()));
        }
    })
}

/// Reading and opening are no changes.
fn is_read(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}
