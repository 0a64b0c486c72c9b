//! The directories (and single files) that a source reads, and whether they are still those that it read. It reads no
//! manifest.
//!
//! The path as the user wrote it is the truth: links in it are followed anew at every look, and a directory that a link
//! leads to now takes the place of the one before.
//!
//! A file that is not below its directory any more was deleted. A directory that is not there any more says nothing of
//! its files: it was moved, its mount went, or an empty one was mounted over it. So a root counts as gone, and nothing
//! below it as deleted, when it
//!
//! - does not exist or cannot be read, or
//! - is another directory (device and inode) than the one that was read, and has no manifest.
//!
//! It is read again when it is the same directory again, or another one that has manifests, the same ones at two looks
//! in a row: somebody may still be copying them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::disk::Disk;
use super::last_good::{DirectoryId, LastGood};
use super::walk::{self, Found};
use super::{DirectoryConfig, SourceError};
use crate::state;
use kube_types::{Code, SourceProblem};

/// Change of a root since the last look.
#[derive(Debug)]
pub(super) enum RootChange {
    /// The directory cannot be read: nothing is known of the files below it now.
    Gone(SourceProblem),
    /// The directory can be read again.
    Restored(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
enum Presence {
    /// Watched; what is not below it does not exist.
    There,
    Gone(String),
    /// Another directory with these manifests.
    Settling(DirectoryId, Vec<PathBuf>),
}

#[derive(Debug)]
struct Root {
    /// Path as the user gave it, absolute; symbolic links in it are not resolved.
    path: PathBuf,
    /// The directory that was read; for a single file the one that it is in. `None` before the first time.
    id: Option<DirectoryId>,
    presence: Presence,
    /// The user's, not one of the state directory.
    is_users: bool,
}

/// Files below the roots.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<PathBuf>,
    /// Problems of what was not searched or is not read.
    pub(super) skipped: Vec<SourceProblem>,
    unknown: Vec<PathBuf>,
}

impl Listing {
    /// Was the place searched at which the path is?
    pub(super) fn knows(&self, path: &Path) -> bool {
        !self.unknown.iter().any(|unknown| path.starts_with(unknown))
    }
}

/// All roots, and the watches on them.
#[derive(Debug)]
pub(super) struct Roots {
    list: Vec<Root>,
    /// State directory, which is not searched.
    state: PathBuf,
    watcher: RecommendedWatcher,
}

impl Roots {
    /// Looks for the first time. A directory that is not there is an error unless it was read by an earlier process,
    /// which left copies.
    pub(super) fn open(
        config: &DirectoryConfig,
        copies: &LastGood,
        watcher: RecommendedWatcher,
        disk: &mut Disk,
    ) -> Result<(Self, Vec<RootChange>), SourceError> {
        let read_before = copies.roots();
        let mut list = Vec::new();
        for given in &config.manifests {
            let failed = |source| SourceError::Directory { path: given.clone(), source };
            // Without resolving links: the path as written is the truth, and links in it are followed at every look.
            let path = std::path::absolute(given).map_err(failed)?;
            // The directory that an earlier process read, which tells a mount that has not come yet from an empty
            // directory.
            let id = read_before.get(path.to_string_lossy().as_ref()).copied();
            list.push(Root { path, id, presence: Presence::Gone(String::new()), is_users: true });
        }
        for path in [state::objects_dir(&config.state), state::overlays_dir(&config.state)] {
            // Both were made by `prepared`, so that they exist.
            list.push(Root { path, id: None, presence: Presence::Gone(String::new()), is_users: false });
        }
        let mut roots = Self { list, state: config.state.clone(), watcher };
        let changes = roots.first_look(copies, disk)?;
        Ok((roots, changes))
    }

    fn first_look(&mut self, copies: &LastGood, disk: &mut Disk) -> Result<Vec<RootChange>, SourceError> {
        let mut changes = Vec::new();
        for index in 0..self.list.len() {
            let root = &self.list[index];
            let has_copies = root.is_users && copies.manifests(&root.path).is_ok_and(|copies| !copies.is_empty());
            match find(&root.path, disk) {
                Ok(id) => {
                    let is_other = root.id.is_some_and(|before| before != id);
                    let mut is_empty = || self.listing(&root.path, disk).is_ok_and(|found| found.files.is_empty());
                    // An empty directory in the place of the one that an earlier process read: a mount that has not
                    // come yet looks like that. The copies stay in force.
                    if is_other && has_copies && is_empty() {
                        changes.push(self.lose(index, REPLACED.to_owned()));
                    } else {
                        let path = root.path.clone();
                        self.accept(index, id, disk).map_err(|source| SourceError::Watch { path, source })?;
                    }
                }
                // A directory that is gone is an error only for a user who has just named it; after a restart its
                // copies hold.
                Err(error) if has_copies => changes.push(self.lose(index, absent(&error))),
                Err(source) => return Err(SourceError::Directory { path: root.path.clone(), source }),
            }
        }
        Ok(changes)
    }

    /// Looks at every root again; `has_files` tells whether something below a path is in force.
    pub(super) fn look_again(&mut self, disk: &mut Disk, has_files: impl Fn(&Path) -> bool) -> Vec<RootChange> {
        (0..self.list.len()).filter_map(|index| self.look_at(index, disk, &has_files)).collect()
    }

    fn look_at(&mut self, index: usize, disk: &mut Disk, has_files: impl Fn(&Path) -> bool) -> Option<RootChange> {
        let root = &self.list[index];
        let path = root.path.clone();
        let id = match find(&path, disk) {
            Ok(id) => id,
            Err(error) => return self.lose_anew(index, absent(&error)),
        };
        let is_same = root.id == Some(id);
        if is_same && root.presence == Presence::There {
            return None;
        }
        // Without files in force there is nothing to lose: another directory is read at once.
        if !is_same && has_files(&path) {
            let listing = match self.listing(&path, disk) {
                Ok(found) if found.files.is_empty() => return self.lose_anew(index, REPLACED.to_owned()),
                Ok(found) => Presence::Settling(id, found.files),
                Err(error) => return self.lose_anew(index, absent(&error)),
            };
            // Different from the last look, or the first one: somebody may still be copying. The next look decides.
            if self.list[index].presence != listing {
                // The watch is on the directory that was there before.
                self.unwatch(index, disk);
                self.list[index].presence = listing;
                return None;
            }
        }
        match self.accept(index, id, disk) {
            Ok(()) => Some(RootChange::Restored(path)),
            Err(error) => self.lose_anew(index, format!("failed to watch: {error}")),
        }
    }

    /// Returns true if the root of this path is the directory that was read, at this moment.
    pub(super) fn is_there(&self, path: &Path, disk: &mut Disk) -> bool {
        self.root_of(path).is_some_and(|root| {
            // Asked of the file system and not of the last look, up to 500 ms ago: what follows is a deletion.
            root.presence == Presence::There && find(&root.path, disk).is_ok_and(|id| root.id == Some(id))
        })
    }

    /// Was the root of this path there at the last look?
    pub(super) fn was_there(&self, path: &Path) -> bool {
        self.root_of(path).is_some_and(|root| root.presence == Presence::There)
    }

    /// Returns true if the path is below one of the roots.
    pub(super) fn contain(&self, path: &Path) -> bool {
        self.root_of(path).is_some()
    }

    /// Returns true if the path itself is one of the user's roots.
    pub(super) fn is_listed(&self, path: &Path) -> bool {
        self.list.iter().any(|root| root.is_users && root.path == path)
    }

    /// The user's roots that contain the path.
    pub(super) fn of_user<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.list
            .iter()
            .filter(|root| root.is_users)
            .map(|root| root.path.as_path())
            .filter(|root| path.starts_with(root))
    }

    /// Every file of manifests or overlays below the roots that are there.
    pub(super) fn files(&self, disk: &mut Disk) -> Listing {
        let mut all = Listing::default();
        for root in self.list.iter().filter(|root| root.presence == Presence::There) {
            match self.listing(&root.path, disk) {
                Ok(found) => {
                    all.files.extend(found.files);
                    all.skipped.extend(found.skipped);
                    all.unknown.extend(found.unknown);
                }
                // The next look names it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => all.unknown.push(root.path.clone()),
                Err(error) => {
                    let code = if error.kind() == io::ErrorKind::TimedOut { Code::NoAnswer } else { Code::Unreadable };
                    all.skipped.push(SourceProblem::of_file(&root.path, code, absent(&error)));
                    all.unknown.push(root.path.clone());
                }
            }
        }
        all
    }

    /// Identities of the user's directories that were read, for the next process.
    pub(super) fn ids(&self) -> BTreeMap<String, DirectoryId> {
        let users = self.list.iter().filter(|root| root.is_users);
        users.filter_map(|root| Some((root.path.to_string_lossy().into_owned(), root.id?))).collect()
    }

    fn root_of(&self, path: &Path) -> Option<&Root> {
        let containing = self.list.iter().filter(|root| path.starts_with(&root.path));
        // The innermost root decides for paths that lie below several: it may have gone while an outer one is there.
        containing.max_by_key(|root| root.path.as_os_str().len())
    }

    fn listing(&self, path: &Path, disk: &mut Disk) -> io::Result<Found> {
        // The roots below the state directory are read, too; a user's root that contains it must not read them again.
        let except = if path.starts_with(&self.state) { None } else { Some(self.state.clone()) };
        let root = path.to_owned();
        let found = disk.call(path, move |progress| {
            let except = except.map(|state| DirectoryId::of(&state)).transpose()?;
            walk::manifests(&root, except, progress)
        });
        found.unwrap_or_else(|error| Err(io::Error::new(io::ErrorKind::TimedOut, error)))
    }

    fn accept(&mut self, index: usize, id: DirectoryId, disk: &mut Disk) -> notify::Result<()> {
        self.unwatch(index, disk);
        let root = &mut self.list[index];
        root.id = Some(id);
        root.presence = Presence::There;
        let (target, mode) = watched(&root.path, disk);
        self.watcher.watch(&target, mode)
    }

    fn lose_anew(&mut self, index: usize, message: String) -> Option<RootChange> {
        let is_known = matches!(&self.list[index].presence, Presence::Gone(known) if *known == message);
        // Once for each reason, not at every look.
        (!is_known).then(|| self.lose(index, message))
    }

    fn lose(&mut self, index: usize, message: String) -> RootChange {
        let root = &mut self.list[index];
        root.presence = Presence::Gone(message.clone());
        // What was deleted has no watch any more, and there need not be one.
        let _ = self.watcher.unwatch(&root.path);
        RootChange::Gone(SourceProblem::of_file(&root.path, Code::DirectoryGone, message))
    }

    /// Stops watching a root; roots that shared the watch get their own.
    fn unwatch(&mut self, index: usize, disk: &mut Disk) {
        let (target, _) = watched(&self.list[index].path, disk);
        // There need not be a watch, and what was deleted has none any more.
        // The watch of a directory covers what is below it, so that removing it takes the watches of other roots there
        // along.
        let _ = self.watcher.unwatch(&target);
        for other in self.list.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, root)| root) {
            let (theirs, mode) = watched(&other.path, disk);
            if other.presence == Presence::There
                && theirs.starts_with(&target)
                && let Err(error) = self.watcher.watch(&theirs, mode)
            {
                // The next look at everything finds what changes meanwhile.
                tracing::warn!(path = %other.path.display(), %error, "failed to watch directory; reading it from time to time");
            }
        }
    }
}

const REPLACED: &str =
    "replaced by a directory without manifests: the objects of the previous one stay in force until it has some";

fn absent(error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "is gone".to_owned(),
        io::ErrorKind::TimedOut => error.to_string(),
        _ => format!("is not readable ({error})"),
    };
    format!("{what}: its objects stay in force until it is back")
}

/// Directory to which a path leads now; of a file the one that it is in.
fn find(path: &Path, disk: &mut Disk) -> io::Result<DirectoryId> {
    let target = path.to_owned();
    let found = disk.call(path, move |_| {
        let metadata = fs::metadata(&target)?;
        if metadata.is_dir() {
            return Ok(DirectoryId::from(&metadata));
        }
        DirectoryId::of(target.parent().unwrap_or(Path::new("/")))
    });
    found.unwrap_or_else(|error| Err(io::Error::new(io::ErrorKind::TimedOut, error)))
}

/// A file that is replaced is a new file: its directory is what can be watched.
fn watched(path: &Path, disk: &mut Disk) -> (PathBuf, RecursiveMode) {
    let target = path.to_owned();
    let is_file = disk.call(path, move |_| target.is_file()).unwrap_or(false);
    match path.parent() {
        Some(parent) if is_file => (parent.to_owned(), RecursiveMode::NonRecursive),
        Some(_) | None => (path.to_owned(), RecursiveMode::Recursive),
    }
}
