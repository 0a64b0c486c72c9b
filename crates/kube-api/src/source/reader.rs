//! The thread that reads the files of a directory source: once as a whole, then what changed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::store::{Store, Tier};
use super::{DirectoryConfig, SourceError, file, walk};
use crate::event::{Event, Severity, SourceProblem};
use crate::kind::ClusterId;
use crate::state;

/// A change is read when the directory has been quiet for this long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// A change is read after this time at the latest, however busy the directory is.
const LATEST: Duration = Duration::from_millis(300);

/// Everything is read again this often, in case a notification was lost.
const RESCAN: Duration = Duration::from_secs(60);

/// Notifications that wait for the reader. When full, the reader looks at everything instead.
const NOTIFICATIONS: usize = 4096;

#[derive(Debug)]
enum Signal {
    Changed(PathBuf),
    Stop,
}

/// Ends the reader when dropped.
#[derive(Debug)]
pub(super) struct Handle {
    signals: SyncSender<Signal>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // When the queue is full the reader is awake anyway and finds nobody listening.
        let _ = self.signals.try_send(Signal::Stop);
    }
}

/// Starts to watch, then to read.
pub(super) fn start(
    config: DirectoryConfig,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
) -> Result<Handle, SourceError> {
    let directory = |path: &Path| {
        let path = path.to_owned();
        |source| SourceError::Directory { path, source }
    };
    let config = absolute(config)?;
    for dir in [state::objects_dir(&config.state), state::overlays_dir(&config.state)] {
        fs::create_dir_all(&dir).map_err(directory(&dir))?;
    }
    let (sender, signals) = sync_channel(NOTIFICATIONS);
    let overflow = Arc::new(AtomicBool::new(false));
    let watcher = watch(&config, sender.clone(), overflow.clone())?;
    let reader = Reader {
        config,
        cluster,
        events,
        signals,
        overflow,
        store: Store::default(),
        seen: HashMap::new(),
        _watcher: watcher,
    };
    std::thread::Builder::new().name("kube-api".to_owned()).spawn(move || reader.run()).map_err(SourceError::Thread)?;
    Ok(Handle { signals: sender })
}

/// Notifications carry absolute paths, so everything does.
fn absolute(config: DirectoryConfig) -> Result<DirectoryConfig, SourceError> {
    let canonical =
        |path: &Path| path.canonicalize().map_err(|source| SourceError::Directory { path: path.to_owned(), source });
    fs::create_dir_all(&config.state)
        .map_err(|source| SourceError::Directory { path: config.state.clone(), source })?;
    Ok(DirectoryConfig {
        manifests: config.manifests.iter().map(|path| canonical(path)).collect::<Result<_, _>>()?,
        state: canonical(&config.state)?,
    })
}

fn watch(
    config: &DirectoryConfig,
    signals: SyncSender<Signal>,
    overflow: Arc<AtomicBool>,
) -> Result<RecommendedWatcher, SourceError> {
    let handler = move |result: notify::Result<notify::Event>| {
        let lost = match result {
            Ok(event) if event.need_rescan() => true,
            Ok(event) if is_read(&event.kind) => false,
            Ok(event) => event.paths.into_iter().any(|path| signals.try_send(Signal::Changed(path)).is_err()),
            Err(error) => {
                tracing::warn!(%error, "a change may have been missed; reading everything again");
                true
            }
        };
        if lost {
            overflow.store(true, Ordering::Release);
            // Wakes the reader; when this fails too the queue is full and it is awake.
            let _ = signals.try_send(Signal::Changed(PathBuf::new()));
        }
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Watch { path, source }
    };
    let mut watcher = notify::recommended_watcher(handler).map_err(failed(&config.state))?;
    for path in &config.manifests {
        // A file that is replaced is a new file: its directory is what can be watched.
        let (target, mode) = match path.parent() {
            Some(parent) if path.is_file() => (parent, RecursiveMode::NonRecursive),
            Some(_) | None => (path.as_path(), RecursiveMode::Recursive),
        };
        watcher.watch(target, mode).map_err(failed(path))?;
    }
    for dir in [state::objects_dir(&config.state), state::overlays_dir(&config.state)] {
        watcher.watch(&dir, RecursiveMode::Recursive).map_err(failed(&dir))?;
    }
    Ok(watcher)
}

/// Reading and opening are no changes.
fn is_read(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// What a path is for.
enum Role {
    Manifest(Tier),
    Overlay,
}

struct Reader {
    config: DirectoryConfig,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    signals: Receiver<Signal>,
    /// A notification was lost.
    overflow: Arc<AtomicBool>,
    store: Store,
    /// Hash of each file's text as last read.
    seen: HashMap<PathBuf, u64>,
    _watcher: RecommendedWatcher,
}

impl Reader {
    fn run(mut self) {
        self.scan();
        let cluster = self.cluster.clone();
        if !self.tell() || self.events.blocking_send(Event::InSync { cluster }).is_err() {
            return;
        }
        while let Some(changed) = self.wait() {
            let all = self.overflow.swap(false, Ordering::AcqRel)
                || changed.as_ref().is_none_or(|paths| paths.iter().any(|path| self.is_coarse(path)));
            if all {
                self.scan();
            } else {
                changed.iter().flatten().for_each(|path| self.look_at(path));
            }
            if !self.tell() {
                return;
            }
        }
    }

    /// Paths that changed, `None` inside when it is time to look at everything. `None` when it is
    /// time to end.
    fn wait(&self) -> Option<Option<BTreeSet<PathBuf>>> {
        let mut paths = BTreeSet::new();
        match self.signals.recv_timeout(RESCAN) {
            Ok(Signal::Changed(path)) => paths.insert(path),
            Err(RecvTimeoutError::Timeout) if !self.events.is_closed() => return Some(None),
            Ok(Signal::Stop) | Err(_) => return None,
        };
        let latest = Instant::now() + LATEST;
        loop {
            let patience = QUIET.min(latest.saturating_duration_since(Instant::now()));
            match self.signals.recv_timeout(patience) {
                Ok(Signal::Changed(path)) => paths.insert(path),
                Err(RecvTimeoutError::Timeout) => return Some(Some(paths)),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
            };
        }
    }

    /// Anything but a file of manifests may stand for many files: a directory that moved, the link
    /// that Kubernetes switches when a mounted ConfigMap changes.
    fn is_coarse(&self, path: &Path) -> bool {
        let temporary = walk::is_hidden(path) && !path.ends_with("..data");
        !temporary && (!walk::is_manifest(path) || path.is_dir())
    }

    /// Reads everything.
    fn scan(&mut self) {
        let state = self.config.state.clone();
        let mut roots = self.config.manifests.clone();
        roots.extend([state::objects_dir(&state), state::overlays_dir(&state)]);
        let mut found = BTreeSet::new();
        for root in roots {
            let except = (!root.starts_with(&state)).then_some(state.as_path());
            match walk::manifests(&root, except) {
                Ok(files) => found.extend(files),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // Nothing below it is known to be gone.
                    tracing::warn!(path = %root.display(), %error, "directory is not readable");
                    found.extend(self.seen.keys().filter(|path| path.starts_with(&root)).cloned());
                }
            }
        }
        let gone: Vec<_> = self.seen.keys().filter(|path| !found.contains(*path)).cloned().collect();
        for path in gone.iter().chain(&found) {
            self.look_at(path);
        }
    }

    /// Reads one file if it is ours and differs from what was read before.
    fn look_at(&mut self, path: &Path) {
        let Some(role) = self.role(path) else {
            return;
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.seen.remove(path).is_some() {
                    self.store.remove(path);
                }
                return;
            }
            Err(error) => {
                self.seen.insert(path.to_owned(), 0);
                return self.store.put_problem(about(path, format!("not readable: {error}")));
            }
        };
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if self.seen.insert(path.to_owned(), hash) == Some(hash) {
            return;
        }
        match role {
            Role::Manifest(tier) => self.store.put_file(path, tier, file::parse(path, &text)),
            Role::Overlay => match state::overlay_key(&self.config.state, path) {
                Some(key) => self.store.put_overlay(path, key, file::parse_overlay(path, &text)),
                None => self.store.put_problem(about(
                    path,
                    "expected <writer>/<Kind>/<namespace or _cluster>/<name>.yaml".to_owned(),
                )),
            },
        }
    }

    fn role(&self, path: &Path) -> Option<Role> {
        let listed = self.config.manifests.iter().any(|root| root == path);
        if !listed && (!walk::is_manifest(path) || walk::is_hidden(path)) {
            return None;
        }
        if path.starts_with(state::overlays_dir(&self.config.state)) {
            return Some(Role::Overlay);
        }
        if path.starts_with(state::objects_dir(&self.config.state)) {
            return Some(Role::Manifest(Tier::Derived));
        }
        let below = |root: &PathBuf| {
            path.strip_prefix(root).is_ok_and(|rest| rest.iter().all(|part| !walk::is_hidden(Path::new(part))))
        };
        (!path.starts_with(&self.config.state) && self.config.manifests.iter().any(below))
            .then_some(Role::Manifest(Tier::User))
    }

    /// Tells what changed; false when nobody listens any more.
    fn tell(&mut self) -> bool {
        self.store.settle(&self.cluster).into_iter().all(|event| self.events.blocking_send(event).is_ok())
    }
}

fn about(path: &Path, message: String) -> SourceProblem {
    SourceProblem { file: path.to_owned(), line: 0, field: String::new(), message, severity: Severity::Refused }
}
