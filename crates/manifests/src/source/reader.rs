//! The thread that reads the files of a directory source: once as a whole, then what changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use runtime::Debounce;
use tokio::sync::mpsc;

use super::disk::{Disk, ReaderHealth};
use super::last_good::LastGood;
use super::read_file::{self, ReadError, Stamp, Text};
use super::roots::{RootChange, Roots};
use super::store::{Store, Tier};
use super::watch::{self, Signal};
use super::{DirectoryConfig, SourceError, file, walk};
use crate::state;
use kube_types::{ClusterId, Code, Event, SourceProblem};

/// A change is read when the directory has been quiet for 30 ms, since editors write in several steps, and after 300 ms
/// however busy the directory is.
const DEBOUNCE: Debounce = Debounce::new(Duration::from_millis(30), Duration::from_millis(300));

/// Shortest time between two looks at everything, in case a notification was lost.
const RESCAN: Duration = Duration::from_secs(2);

/// Looks at everything take at most one part in this many of the time.
const RESCAN_SHARE: u32 = 100;

/// Roots are looked at this often: a mount over one of them gives no notification.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A file that was rewritten in place and has objects less counts after it was the same for this long: before that its
/// writer may not have written all of it.
const SETTLED: Duration = Duration::from_secs(1);

/// Ends the reader when dropped.
#[derive(Debug)]
pub(super) struct Handle {
    signals: SyncSender<Signal>,
    pub(super) health: ReaderHealth,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // When the queue is full the reader is awake anyway and finds that the receiver is closed.
        let _ = self.signals.try_send(Signal::Stop);
    }
}

/// Starts to watch, then to read.
pub(super) fn start(config: DirectoryConfig, events: mpsc::Sender<Event>) -> Result<Handle, SourceError> {
    // Before the watcher: only a directory that exists can be watched.
    let config = prepared(config)?;
    let (sender, signals) = watch::queue();
    let overflow = Arc::new(AtomicBool::new(false));
    let watcher = watch::watcher(sender.clone(), overflow.clone());
    let watcher = watcher.map_err(|source| SourceError::Watch { path: config.state.clone(), source })?;
    let last_good = LastGood::new(&config.state, config.last_good);
    let health = ReaderHealth::default();
    let mut disk = Disk::new(health.clone());
    // Watched before it is read: what changes in between is then read twice rather than missed.
    let (roots, changes) = Roots::open(&config, &last_good, watcher, &mut disk)?;
    let reader = Reader {
        state: config.state,
        cluster: config.cluster,
        events,
        signals,
        overflow,
        health: health.clone(),
        disk,
        store: Store::default(),
        seen: HashMap::new(),
        unsettled: BTreeMap::new(),
        skipped: BTreeSet::new(),
        roots,
        last_good,
        next_scan: Instant::now(),
    };
    let run = move || reader.run(changes);
    // A thread and not a task: it blocks on the file system.
    std::thread::Builder::new().name("manifests".to_owned()).spawn(run).map_err(SourceError::Thread)?;
    Ok(Handle { signals: sender, health })
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

/// Purpose of a file.
#[derive(Clone, Copy)]
enum Role {
    Manifest(Tier),
    Overlay,
}

/// A file as last read.
pub(super) struct Seen {
    /// Hash of its text; `None` when it could not be read.
    // A collision would hide a change; with 64 bits and one file to compare with that is once in 10^19 changes.
    hash: Option<u64>,
    /// Equal as long as it was not touched; `None` when that does not prove anything.
    stamp: Option<Stamp>,
    /// Stamp of the file.
    file: Option<Stamp>,
}

impl Seen {
    pub(super) const UNREAD: Self = Self { hash: None, stamp: None, file: None };
}

pub(super) struct Reader {
    state: PathBuf,
    cluster: ClusterId,
    events: mpsc::Sender<Event>,
    signals: Receiver<Signal>,
    /// A notification was lost.
    overflow: Arc<AtomicBool>,
    health: ReaderHealth,
    pub(super) disk: Disk,
    pub(super) store: Store,
    pub(super) seen: HashMap<PathBuf, Seen>,
    /// Files that somebody may still be writing: hash of their text, and when it was first read.
    pub(super) unsettled: BTreeMap<PathBuf, (u64, Instant)>,
    /// Paths that were not searched or not read at the last look at everything.
    pub(super) skipped: BTreeSet<PathBuf>,
    pub(super) roots: Roots,
    pub(super) last_good: LastGood,
    next_scan: Instant,
}

impl Reader {
    fn run(mut self, changes: Vec<RootChange>) {
        for change in changes {
            self.restore_copies(&change);
            self.on_root_change(change);
        }
        // Before `InSync`, so that the receiver never sees a directory of which a part is missing.
        self.scan();
        // After the scan, which has seen every file that still exists.
        self.forget_deleted();
        let cluster = self.cluster.clone();
        if self.report() && self.events.blocking_send(Event::InSync { cluster }).is_ok() {
            while let Some(changed) = self.wait() {
                self.health.beat();
                self.on_change(&changed);
                if !self.report() {
                    break;
                }
            }
        }
        self.health.end();
    }

    fn on_change(&mut self, changed: &BTreeSet<PathBuf>) {
        let seen = &self.seen;
        // Files that were read, whether they are good or not.
        let has_files = |root: &Path| seen.keys().any(|path| path.starts_with(root));
        let changes = self.roots.look_again(&mut self.disk, has_files);
        let all = self.overflow.swap(false, Ordering::AcqRel)
            || Instant::now() >= self.next_scan
            || changes.iter().any(|change| matches!(change, RootChange::Restored { .. }))
            || changed.iter().any(|path| self.is_coarse(path));
        // Before the look at files: it decides which of them count as unread.
        changes.into_iter().for_each(|change| self.on_root_change(change));
        if all {
            self.scan();
        } else {
            changed.iter().for_each(|path| self.look_at(path));
        }
        // No notification comes when a writer stops writing, so these are read again until they are settled.
        for path in self.unsettled.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&path);
        }
    }

    /// Paths that changed, none when it is only time to look again. `None` when it is time to end.
    fn wait(&self) -> Option<BTreeSet<PathBuf>> {
        let mut paths = BTreeSet::new();
        match self.signals.recv_timeout(LOOK_AGAIN) {
            Ok(Signal::Changed(path)) => paths.insert(path),
            // Without the second condition a reader whose receiver is gone would wait for the next change to find out.
            Err(RecvTimeoutError::Timeout) if !self.events.is_closed() => return Some(paths),
            Ok(Signal::Stop) | Err(_) => return None,
        };
        // A checkout or `kubectl kustomize` writes many files; each would be a change of the mesh of its own.
        let burst = DEBOUNCE.begin();
        loop {
            let patience = burst.patience();
            if patience.is_zero() {
                return Some(paths);
            }
            match self.signals.recv_timeout(patience) {
                Ok(Signal::Changed(path)) => paths.insert(path),
                Err(RecvTimeoutError::Timeout) => return Some(paths),
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return None,
            };
        }
    }

    /// Anything but a file of manifests may stand for many files: a directory that moved, the link
    /// that Kubernetes switches when a mounted ConfigMap changes.
    fn is_coarse(&mut self, path: &Path) -> bool {
        let temporary = walk::is_hidden(path) && !path.ends_with("..data");
        !temporary && (!walk::is_manifest(path) || !self.seen.contains_key(path) && self.is_directory(path))
    }

    fn is_directory(&mut self, path: &Path) -> bool {
        let target = path.to_owned();
        self.disk.call(path, move |_| target.is_dir()).unwrap_or(false)
    }

    /// A root that went or came back: what is below it is read again then, whatever was seen there.
    fn on_root_change(&mut self, change: RootChange) {
        match change {
            RootChange::Gone(problem) => self.store.put_problems(&problem.file.clone(), vec![problem]),
            RootChange::Restored(path) => {
                self.store.solve(&path);
                let below = self.seen.iter_mut().filter(|(file, _)| file.starts_with(&path));
                below.for_each(|(_, seen)| *seen = Seen::UNREAD);
                self.keep_roots();
            }
        }
    }

    pub(super) fn keep_roots(&mut self) {
        if let Err(error) = self.last_good.keep_roots(&self.roots.ids()) {
            tracing::warn!(%error, code = "last_good_not_saved", "failed to save the list of manifest directories");
        }
    }

    /// Looks at everything.
    fn scan(&mut self) {
        let started = Instant::now();
        let listing = self.roots.files(&mut self.disk);
        let found: BTreeSet<_> = listing.files.iter().cloned().collect();
        // Not in the list, and the list is complete there. `look_at` asks the file system once more.
        let is_gone = |path: &&PathBuf| !found.contains(*path) && listing.knows(path);
        let gone: Vec<_> = self.seen.keys().filter(is_gone).cloned().collect();
        for path in gone.iter().chain(&found) {
            // A first reading of thousands of files takes longer than the heartbeat allows.
            self.health.beat();
            self.look_at(path);
        }
        let mut skipped = BTreeMap::<PathBuf, Vec<SourceProblem>>::new();
        for problem in listing.skipped {
            // A file that was read before names its own problem.
            if self.roots.was_there(&problem.file) && !self.seen.contains_key(&problem.file) {
                skipped.entry(problem.file.clone()).or_default().push(problem);
            } else if self.seen.contains_key(&problem.file) {
                self.look_at(&problem.file);
            }
        }
        let before = std::mem::replace(&mut self.skipped, skipped.keys().cloned().collect());
        for path in before.iter().filter(|path| !skipped.contains_key(*path) && !self.seen.contains_key(*path)) {
            self.store.solve(path);
        }
        for (path, problems) in skipped {
            self.store.put_problems(&path, problems);
        }
        // A directory that takes long to read is read less often: reading may use a share of the time, not all of it.
        self.next_scan = Instant::now() + RESCAN.max(started.elapsed() * RESCAN_SHARE);
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
        // Nothing is known below a root that is gone; its files stay as they were read.
        if !self.roots.was_there(path) {
            return;
        }
        let last = self.seen.get(path).and_then(|seen| seen.stamp);
        let read = match self.read(path, last) {
            Ok(None) => return,
            Ok(Some(text)) => Ok(text),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Its directory may have gone since the last look: then nothing is known.
                if self.roots.is_there(path, &mut self.disk) {
                    self.forget(path);
                }
                return;
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(text) => self.on_text(path, role, text),
            Err(error) => {
                // A pipe or a device that never was a manifest is named by the search.
                if matches!(error, ReadError::NotAFile(_))
                    && !self.seen.contains_key(path)
                    && !self.roots.is_listed(path)
                {
                    return;
                }
                // Without hash and stamp, so that it is read again at every look until it can be.
                self.seen.insert(path.to_owned(), Seen::UNREAD);
                let code = match &error {
                    ReadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Code::NoAnswer,
                    error => error.code(),
                };
                let problem = SourceProblem::of_file(path, code, error.to_string());
                self.put(path, role, Err(Box::new(problem)));
            }
        }
    }

    /// The text of a file; `None` when its metadata prove that it is as it was.
    fn read(&mut self, path: &Path, last: Option<Stamp>) -> Result<Option<Text>, ReadError> {
        let target = path.to_owned();
        let read = self.disk.call(path, move |_| {
            if last.is_some() && fs::metadata(&target).ok().map(|metadata| Stamp::of(&metadata)) == last {
                return Ok(None);
            }
            let read = read_file::read(&target).map(Some);
            // A link that leads nowhere is not a file that was deleted.
            match read {
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound && target.is_symlink() => {
                    Err(io::Error::other("a link to a file that does not exist").into())
                }
                read => read,
            }
        });
        read.unwrap_or_else(|error| Err(io::Error::new(io::ErrorKind::TimedOut, error).into()))
    }

    fn on_text(&mut self, path: &Path, role: Role, Text { text, stamp }: Text) {
        // Not a cryptographic one: whoever can write the manifest decides what is in force anyway.
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let proof = stamp.is_old(SystemTime::now()).then_some(stamp);
        let seen = Seen { hash: Some(hash), stamp: proof, file: Some(stamp) };
        if let Some(last) = self.seen.get_mut(path)
            && last.hash == Some(hash)
        {
            // The stamp is new even though the text is not: the next look then needs only the metadata.
            *last = seen;
            self.unsettled.remove(path);
            return;
        }
        // An editor that writes in place truncates first: half a file looks like deleted objects. One that replaces the
        // file (`rename`) shows another inode, and its text is complete.
        let is_in_place = self.seen.get(path).and_then(|seen| seen.file).is_some_and(|file| file.is_same_file(&stamp));
        if is_in_place
            && let Role::Manifest(_) = role
            && !self.is_settled(path, hash)
            && self.store.would_remove(path, &file::parse(path, &text))
        {
            return;
        }
        self.unsettled.remove(path);
        self.seen.insert(path.to_owned(), seen);
        self.put(path, role, Ok(text));
    }

    /// Was the text of a file that is written in place the same for a while?
    fn is_settled(&mut self, path: &Path, hash: u64) -> bool {
        let now = Instant::now();
        let entry = self.unsettled.entry(path.to_owned()).or_insert((hash, now));
        // Each difference starts the time anew: the writer is still at work.
        if entry.0 != hash {
            *entry = (hash, now);
        }
        entry.1.elapsed() >= SETTLED
    }

    fn put(&mut self, path: &Path, role: Role, read: Result<String, Box<SourceProblem>>) {
        match role {
            Role::Manifest(tier) => self.put_manifest(path, tier, read),
            Role::Overlay => self.put_overlay(path, read),
        }
    }

    fn put_overlay(&mut self, path: &Path, read: Result<String, Box<SourceProblem>>) {
        match state::overlay_key(&self.state, path) {
            Some(key) => {
                // An overlay is written by replacing the file, so that it needs no settling.
                let contents = read.and_then(|text| file::parse_overlay(path, &text));
                self.store.put_overlay(path, key, contents, SystemTime::now());
            }
            None => {
                let message = "unexpected file: expected <writer>/<Kind>/<namespace or _cluster>/<name>.yaml";
                let problem = SourceProblem::of_file(path, Code::InvalidOverlay, message);
                self.store.put_problems(path, vec![problem]);
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
        // The state directory may lie below a user's root; its copies and overlays are no manifests.
        (!path.starts_with(&self.state) && self.roots.of_user(path).any(is_plain)).then_some(Role::Manifest(Tier::User))
    }

    /// Reports what changed; false when the receiver is gone.
    fn report(&mut self) -> bool {
        self.store.changes(&self.cluster).into_iter().all(|event| self.events.blocking_send(event).is_ok())
    }
}
