//! The thread that reads the files of a directory source: once as a whole, then what changed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::last_good::{Keeping, LastGood};
use super::roots::{Roots, Turn};
use super::store::{Store, Tier};
use super::watch::{self, Signal};
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

/// Roots are looked at this often: a mount over one of them gives no notification.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    keeping: Keeping,
    events: mpsc::Sender<Event>,
) -> Result<Handle, SourceError> {
    let config = prepared(config)?;
    let (sender, signals) = watch::queue();
    let overflow = Arc::new(AtomicBool::new(false));
    let watcher = watch::watcher(sender.clone(), overflow.clone());
    let watcher = watcher.map_err(|source| SourceError::Watch { path: config.state.clone(), source })?;
    let last_good = LastGood::new(&config.state, keeping);
    let (roots, turns) = Roots::open(&config, &last_good, watcher)?;
    let reader = Reader {
        state: config.state,
        cluster,
        events,
        signals,
        overflow,
        store: Store::default(),
        seen: HashMap::new(),
        roots,
        last_good,
        scanned: Instant::now(),
    };
    let run = move || reader.run(turns);
    std::thread::Builder::new().name("kube-api".to_owned()).spawn(run).map_err(SourceError::Thread)?;
    Ok(Handle { signals: sender })
}

/// Makes the state directory; its path without links, since paths are compared.
fn prepared(mut config: DirectoryConfig) -> Result<DirectoryConfig, SourceError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| SourceError::Directory { path, source }
    };
    fs::create_dir_all(&config.state).map_err(failed(&config.state))?;
    config.state = config.state.canonicalize().map_err(failed(&config.state))?;
    for dir in [state::objects_dir(&config.state), state::overlays_dir(&config.state)] {
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
    }
    Ok(config)
}

/// What a path is for.
enum Role {
    Manifest(Tier),
    Overlay,
}

struct Reader {
    state: PathBuf,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    signals: Receiver<Signal>,
    /// A notification was lost.
    overflow: Arc<AtomicBool>,
    store: Store,
    /// Hash of each file's text as last read; 0 when it is to be read again.
    seen: HashMap<PathBuf, u64>,
    roots: Roots,
    last_good: LastGood,
    /// When everything was read.
    scanned: Instant,
}

impl Reader {
    fn run(mut self, turns: Vec<Turn>) {
        for turn in turns {
            self.recall_all(&turn);
            self.turn(turn);
        }
        self.scan();
        self.forget_deleted();
        let cluster = self.cluster.clone();
        if !self.tell() || self.events.blocking_send(Event::InSync { cluster }).is_err() {
            return;
        }
        while let Some(changed) = self.wait() {
            let seen = &self.seen;
            let turns = self.roots.look_again(|root| seen.keys().any(|path| path.starts_with(root)));
            let all = self.overflow.swap(false, Ordering::AcqRel)
                || self.scanned.elapsed() >= RESCAN
                || turns.iter().any(|turn| matches!(turn, Turn::Back { .. }))
                || changed.iter().any(|path| self.is_coarse(path));
            turns.into_iter().for_each(|turn| self.turn(turn));
            if all {
                self.scan();
            } else {
                changed.iter().for_each(|path| self.look_at(path));
            }
            if !self.tell() {
                return;
            }
        }
    }

    /// Paths that changed, none when it is only time to look again. `None` when it is time to end.
    fn wait(&self) -> Option<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        match self.signals.recv_timeout(LOOK_AGAIN) {
            Ok(Signal::Changed(path)) => paths.insert(path),
            Err(RecvTimeoutError::Timeout) if !self.events.is_closed() => return Some(paths),
            Ok(Signal::Stop) | Err(_) => return None,
        };
        let latest = Instant::now() + LATEST;
        loop {
            let patience = QUIET.min(latest.saturating_duration_since(Instant::now()));
            match self.signals.recv_timeout(patience) {
                Ok(Signal::Changed(path)) => paths.insert(path),
                Err(RecvTimeoutError::Timeout) => return Some(paths),
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

    /// A root that went or came back: what is below it is read again then, whatever was seen there.
    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Gone { path, message } => self.store.put_directory_problem(about(&path, message)),
            Turn::Back { path, before } => {
                self.store.solve(&before);
                let below = self.seen.iter_mut().filter(|(file, _)| file.starts_with(&path));
                below.for_each(|(_, hash)| *hash = 0);
                self.keep_roots();
            }
        }
    }

    fn keep_roots(&mut self) {
        if let Err(error) = self.last_good.keep_roots(&self.roots.ids()) {
            tracing::warn!(%error, code = "last_good_not_written", "which directories are read is not kept");
        }
    }

    /// Reads everything.
    fn scan(&mut self) {
        self.scanned = Instant::now();
        let (found, unread) = self.roots.files();
        let found: BTreeSet<_> = found.into_iter().collect();
        let is_known = |path: &PathBuf| !unread.iter().any(|root| path.starts_with(root));
        let gone: Vec<_> = self.seen.keys().filter(|path| !found.contains(*path) && is_known(path)).cloned().collect();
        for path in gone.iter().chain(&found) {
            self.look_at(path);
        }
    }

    /// Reads one file if it is ours and differs from what was read before.
    fn look_at(&mut self, path: &Path) {
        let Some(role) = self.role(path) else {
            // Its root led here once.
            if !self.roots.contain(path) && self.seen.contains_key(path) {
                self.forget(path);
            }
            return;
        };
        if !self.roots.was_there(path) {
            return;
        }
        let read = fs::read_to_string(path);
        match &read {
            Ok(text) => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                let hash = hasher.finish();
                if self.seen.insert(path.to_owned(), hash) == Some(hash) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Its directory may have gone since the last look: then nothing is known.
                if self.roots.is_there(path) {
                    self.forget(path);
                }
                return;
            }
            Err(_) => drop(self.seen.insert(path.to_owned(), 0)),
        }
        let read = read.map_err(|error| about(path, format!("not readable: {error}")));
        match role {
            Role::Manifest(tier) => self.put_manifest(path, tier, read),
            Role::Overlay => self.put_overlay(path, read),
        }
    }

    fn put_overlay(&mut self, path: &Path, read: Result<String, SourceProblem>) {
        match state::overlay_key(&self.state, path) {
            Some(key) => {
                let contents = read.and_then(|text| file::parse_overlay(path, &text));
                self.store.put_overlay(path, key, contents, SystemTime::now());
            }
            None => {
                let message = "expected <writer>/<Kind>/<namespace or _cluster>/<name>.yaml".to_owned();
                self.store.put_problem(about(path, message));
            }
        }
    }

    /// Takes a file of manifests. The user's are kept for the next start when they are good; a broken one of which
    /// nothing is in force is what it was when it was good.
    fn put_manifest(&mut self, path: &Path, tier: Tier, read: Result<String, SourceProblem>) {
        let (contents, text) = match read {
            Ok(text) => (file::parse(path, &text), text),
            Err(problem) => (file::Contents::refused(problem), String::new()),
        };
        let since = match (tier, contents.is_refused()) {
            (Tier::User, false) => self.keep(path, &text),
            (Tier::User, true) if !self.store.knows(path) => {
                self.recall(path);
                SystemTime::now()
            }
            (Tier::User, true) | (Tier::Derived, _) => SystemTime::now(),
        };
        self.store.put_file(path, tier, contents, since);
    }

    /// Keeps the text of a good manifest; since when it is known.
    fn keep(&mut self, manifest: &Path, text: &str) -> SystemTime {
        let copy = self.last_good.path(manifest);
        match self.last_good.keep(manifest, text) {
            Ok(since) => {
                self.store.solve(&copy);
                since
            }
            Err(error) => {
                let message = format!("not written: {error}: a start that finds the manifest broken would lack it");
                self.store.put_problem(SourceProblem { severity: Severity::Noted, ..about(&copy, message) });
                SystemTime::now()
            }
        }
    }

    /// Brings back what a manifest said when it was last good, as an earlier process left it.
    fn recall(&mut self, manifest: &Path) {
        let path = self.last_good.path(manifest);
        let told = |problem| SourceProblem { severity: Severity::Noted, ..problem };
        match self.last_good.load(manifest) {
            Ok(Some(copy)) => {
                let contents = file::parse(manifest, &copy.text);
                if contents.is_refused() {
                    // What was good for an earlier version of this program.
                    let problems = contents.problems.into_iter().map(|mut problem| {
                        problem.file.clone_from(&path);
                        told(problem)
                    });
                    self.store.put_problems(&path, problems.collect());
                } else {
                    self.store.put_file(manifest, Tier::User, contents, copy.since);
                }
            }
            Ok(None) => {}
            Err(error) => self.store.put_problem(told(about(&path, format!("not readable: {error}")))),
        }
    }

    /// Brings back everything below a directory that is gone at the start.
    fn recall_all(&mut self, turn: &Turn) {
        let Turn::Gone { path, .. } = turn else {
            return;
        };
        for manifest in self.last_good.manifests(path).unwrap_or_default() {
            self.recall(&manifest);
            self.seen.insert(manifest, 0);
        }
    }

    /// Forgets what was deleted while nobody looked. Of a directory that is gone nothing is known, nor of one that is
    /// not read this time.
    fn forget_deleted(&mut self) {
        self.keep_roots();
        for manifest in self.last_good.manifests(Path::new("/")).unwrap_or_default() {
            if !self.seen.contains_key(&manifest) && self.roots.is_there(&manifest) {
                self.forget(&manifest);
            }
        }
    }

    /// The file is gone, and so is what it said.
    fn forget(&mut self, path: &Path) {
        if self.seen.remove(path).is_some() {
            self.store.remove(path);
        }
        let copy = self.last_good.path(path);
        match self.last_good.forget(path) {
            Ok(()) => self.store.solve(&copy),
            Err(error) => {
                let message = format!("not removed: {error}: a file of this name that is broken would bring it back");
                self.store.put_problem(SourceProblem { severity: Severity::Noted, ..about(&copy, message) });
            }
        }
    }

    fn role(&self, path: &Path) -> Option<Role> {
        if !self.roots.is_listed(path) && (!walk::is_manifest(path) || walk::is_hidden(path)) {
            return None;
        }
        if path.starts_with(state::overlays_dir(&self.state)) {
            return Some(Role::Overlay);
        }
        if path.starts_with(state::objects_dir(&self.state)) {
            return Some(Role::Manifest(Tier::Derived));
        }
        let is_plain = |root: &Path| {
            path.strip_prefix(root).is_ok_and(|rest| rest.iter().all(|part| !walk::is_hidden(Path::new(part))))
        };
        (!path.starts_with(&self.state) && self.roots.of_user(path).any(is_plain)).then_some(Role::Manifest(Tier::User))
    }

    /// Tells what changed; false when nobody listens any more.
    fn tell(&mut self) -> bool {
        self.store.settle(&self.cluster).into_iter().all(|event| self.events.blocking_send(event).is_ok())
    }
}

fn about(path: &Path, message: String) -> SourceProblem {
    let file = path.to_owned();
    SourceProblem { file, line: 0, field: String::new(), message, severity: Severity::Refused, in_force: None }
}
