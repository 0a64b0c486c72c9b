//! The directories (and single files) that a source reads, and whether they are still those that it read. It reads no
//! manifest.
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
use std::io;
use std::path::{Path, PathBuf};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use super::last_good::{DirectoryId, LastGood};
use super::{DirectoryConfig, SourceError, walk};
use crate::state;

/// What became of a root since the last look.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing is known of what is below it now, and why.
    Gone { path: PathBuf, message: String },
    /// It can be read again, perhaps under another path than before.
    Back { path: PathBuf, before: PathBuf },
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
    /// As the user gave it; links in it may lead elsewhere one day.
    given: PathBuf,
    /// Where that led when it was read.
    path: PathBuf,
    /// The directory that was read; for a single file the one that it is in. `None` before the first time.
    id: Option<DirectoryId>,
    presence: Presence,
    /// The user's, not one of the state directory.
    is_users: bool,
}

/// All roots, and what watches them.
#[derive(Debug)]
pub(super) struct Roots {
    list: Vec<Root>,
    /// Not searched from outside.
    state: PathBuf,
    watcher: RecommendedWatcher,
}

impl Roots {
    /// Looks for the first time, with paths that are absolute and without links. A directory that is not there is an
    /// error unless it was read by an earlier process, which left copies.
    pub(super) fn open(
        config: &DirectoryConfig,
        copies: &LastGood,
        watcher: RecommendedWatcher,
    ) -> Result<(Self, Vec<Turn>), SourceError> {
        let read_before = copies.roots();
        let mut list = Vec::new();
        for given in &config.manifests {
            let path = resolved(given).map_err(|source| SourceError::Directory { path: given.clone(), source })?;
            let id = read_before.get(path.to_string_lossy().as_ref()).copied();
            list.push(Root { given: given.clone(), path, id, presence: Presence::Gone(String::new()), is_users: true });
        }
        for path in [state::objects_dir(&config.state), state::overlays_dir(&config.state)] {
            let presence = Presence::Gone(String::new());
            list.push(Root { given: path.clone(), path, id: None, presence, is_users: false });
        }
        let mut roots = Self { list, state: config.state.clone(), watcher };
        let turns = roots.first_look(copies)?;
        Ok((roots, turns))
    }

    fn first_look(&mut self, copies: &LastGood) -> Result<Vec<Turn>, SourceError> {
        let mut turns = Vec::new();
        for index in 0..self.list.len() {
            let root = &self.list[index];
            let has_copies = root.is_users && copies.manifests(&root.path).is_ok_and(|copies| !copies.is_empty());
            match find(&root.given) {
                Ok((path, id)) => {
                    let is_other = root.id.is_some_and(|before| before != id);
                    if is_other && has_copies && self.listing(&path).is_ok_and(|listing| listing.is_empty()) {
                        turns.push(self.lose(index, REPLACED.to_owned()));
                    } else {
                        let path = root.given.clone();
                        self.accept(index, id).map_err(|source| SourceError::Watch { path, source })?;
                    }
                }
                Err(error) if has_copies => turns.push(self.lose(index, absent(&error))),
                Err(source) => return Err(SourceError::Directory { path: root.given.clone(), source }),
            }
        }
        Ok(turns)
    }

    /// Looks at every root again; `has_files` tells whether something below a path is in force.
    pub(super) fn look_again(&mut self, has_files: impl Fn(&Path) -> bool) -> Vec<Turn> {
        (0..self.list.len()).filter_map(|index| self.look_at(index, &has_files)).collect()
    }

    fn look_at(&mut self, index: usize, has_files: impl Fn(&Path) -> bool) -> Option<Turn> {
        let root = &self.list[index];
        let before = root.path.clone();
        let (path, id) = match find(&root.given) {
            Ok(found) => found,
            Err(error) => return self.lose_anew(index, absent(&error)),
        };
        let is_same = path == before && root.id == Some(id);
        if is_same && root.presence == Presence::There {
            return None;
        }
        if !is_same && has_files(&before) {
            let listing = match self.listing(&path) {
                Ok(listing) if listing.is_empty() => return self.lose_anew(index, REPLACED.to_owned()),
                Ok(listing) => Presence::Settling(id, listing),
                Err(error) => return self.lose_anew(index, absent(&error)),
            };
            if self.list[index].presence != listing {
                self.unwatch(index);
                self.list[index].presence = listing;
                return None;
            }
        }
        self.list[index].path.clone_from(&path);
        match self.accept(index, id) {
            Ok(()) => Some(Turn::Back { path, before }),
            Err(error) => self.lose_anew(index, format!("cannot be watched: {error}")),
        }
    }

    /// Is the root of this path as it was read, at this moment?
    pub(super) fn is_there(&self, path: &Path) -> bool {
        self.root_of(path).is_some_and(|root| {
            root.presence == Presence::There
                && find(&root.given).is_ok_and(|(path, id)| path == root.path && root.id == Some(id))
        })
    }

    /// Was the root of this path there at the last look?
    pub(super) fn was_there(&self, path: &Path) -> bool {
        self.root_of(path).is_some_and(|root| root.presence == Presence::There)
    }

    /// Is the path below one of the roots?
    pub(super) fn contain(&self, path: &Path) -> bool {
        self.root_of(path).is_some()
    }

    /// Is the path itself one of the user's roots?
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

    /// Every file of manifests or overlays below the roots that are there, and the paths of the roots that turned out to
    /// be unreadable.
    pub(super) fn files(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut files, mut unread) = (Vec::new(), Vec::new());
        for root in self.list.iter().filter(|root| root.presence == Presence::There) {
            match self.listing(&root.path) {
                Ok(found) => files.extend(found),
                Err(_) => unread.push(root.path.clone()),
            }
        }
        (files, unread)
    }

    /// Which directories of the user's were read, for the next process.
    pub(super) fn ids(&self) -> BTreeMap<String, DirectoryId> {
        let users = self.list.iter().filter(|root| root.is_users);
        users.filter_map(|root| Some((root.path.to_string_lossy().into_owned(), root.id?))).collect()
    }

    fn root_of(&self, path: &Path) -> Option<&Root> {
        let containing = self.list.iter().filter(|root| path.starts_with(&root.path));
        containing.max_by_key(|root| root.path.as_os_str().len())
    }

    fn listing(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        walk::manifests(path, (!path.starts_with(&self.state)).then_some(self.state.as_path()))
    }

    fn accept(&mut self, index: usize, id: DirectoryId) -> notify::Result<()> {
        self.unwatch(index);
        let root = &mut self.list[index];
        root.id = Some(id);
        root.presence = Presence::There;
        let (target, mode) = watched(&root.path);
        self.watcher.watch(&target, mode)
    }

    fn lose_anew(&mut self, index: usize, message: String) -> Option<Turn> {
        let is_told = matches!(&self.list[index].presence, Presence::Gone(told) if *told == message);
        (!is_told).then(|| self.lose(index, message))
    }

    fn lose(&mut self, index: usize, message: String) -> Turn {
        self.unwatch(index);
        let root = &mut self.list[index];
        root.presence = Presence::Gone(message.clone());
        Turn::Gone { path: root.path.clone(), message }
    }

    /// Stops to watch a root, and goes on with those that shared the watch.
    fn unwatch(&mut self, index: usize) {
        let (target, _) = watched(&self.list[index].path);
        // There need not be a watch, and what was deleted has none any more.
        let _ = self.watcher.unwatch(&target);
        for other in self.list.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, root)| root) {
            let (theirs, mode) = watched(&other.path);
            if other.presence == Presence::There
                && theirs.starts_with(&target)
                && let Err(error) = self.watcher.watch(&theirs, mode)
            {
                // The next look at everything finds what changes meanwhile.
                tracing::warn!(path = %other.path.display(), %error, "directory is not watched");
            }
        }
    }
}

const REPLACED: &str = "another directory is here now, without any manifest: what was read from the one before stays in force until there is one";

fn absent(error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "is gone".to_owned(),
        _ => format!("is not readable ({error})"),
    };
    format!("{what}: what was read from it stays in force until it is back")
}

/// Where `given` leads now, and which directory that is.
fn find(given: &Path) -> io::Result<(PathBuf, DirectoryId)> {
    let path = given.canonicalize()?;
    let id = DirectoryId::of(&watched(&path).0)?;
    Ok((path, id))
}

/// As [`find`], for something that need not exist: then only what is above it is resolved.
fn resolved(given: &Path) -> io::Result<PathBuf> {
    match (given.canonicalize(), given.parent(), given.file_name()) {
        (Err(_), Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        (result, _, _) => result,
    }
}

/// A file that is replaced is a new file: its directory is what can be watched.
fn watched(path: &Path) -> (PathBuf, RecursiveMode) {
    match path.parent() {
        Some(parent) if path.is_file() => (parent.to_owned(), RecursiveMode::NonRecursive),
        Some(_) | None => (path.to_owned(), RecursiveMode::Recursive),
    }
}
