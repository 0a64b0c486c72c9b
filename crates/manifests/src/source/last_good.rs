//! Copies of the user's objects as they were last good, for a start that finds one of them broken: without them a policy
//! that somebody is editing would be off until its mistake is corrected.
//!
//! Every kind is kept, not policies alone: a policy protects by what it selects (labels and service accounts of pods,
//! enrolment of namespaces). The objects of a manifest are in `<state>/last-good/files` below the manifest's own absolute
//! path, as JSON, each with the time at which it was first read. Beside them `roots.json` has device and inode of each
//! directory that was read.
//!
//! All readers of a state directory use the copies, one of them ([`LastGoodCopies::Write`]) makes them. This module does not read
//! what the objects mean.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state;

/// Mode of copies. Only the owner reads them: manifests hold what ConfigMaps hold.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Use that a reader makes of the copies of its state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastGoodCopies {
    /// Another program writes them.
    Read,
    /// Copies of good manifests below `<state>/last-good`, mode 0600, for every source that starts when a manifest is
    /// invalid or its directory gone. One program per state directory.
    Write,
}

/// Identity of a directory, whatever its name. Unique among what exists on a machine at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DirectoryId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for DirectoryId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl DirectoryId {
    /// Identity of the directory at `path`, links followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }
}

/// An object that was good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Copy {
    /// Time when it was first read in this form.
    pub(super) since: SystemTime,
    /// Line in the manifest where it began, from 1.
    pub(super) line: usize,
    pub(super) object: Value,
}

#[derive(Debug)]
pub(super) struct LastGood {
    dir: PathBuf,
    copies: LastGoodCopies,
}

impl LastGood {
    pub(super) fn new(state: &Path, copies: LastGoodCopies) -> Self {
        Self { dir: state::last_good_dir(state), copies }
    }

    /// Path of the copy of a manifest.
    pub(super) fn path(&self, manifest: &Path) -> PathBuf {
        // An absolute path in `join` would replace the directory.
        self.files().join(manifest.strip_prefix("/").unwrap_or(manifest))
    }

    /// The good objects of a manifest; none when there never were any.
    pub(super) fn load(&self, manifest: &Path) -> io::Result<Vec<Copy>> {
        match fs::read(self.path(manifest)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Keeps the good objects of a manifest.
    pub(super) fn keep(&self, manifest: &Path, objects: &[Copy]) -> io::Result<()> {
        if self.copies == LastGoodCopies::Read {
            return Ok(());
        }
        if objects.is_empty() {
            // A copy without objects would bring back nothing, and would have to be read at every start.
            return self.forget(manifest);
        }
        let path = self.path(manifest);
        let text = serde_json::to_vec(objects)?;
        // Most starts find what they would write.
        if fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        self.make_directory(path.parent().unwrap_or(&path))?;
        state::write_private(&path, &text, FILE_MODE)
    }

    /// Deletes the copy of a manifest, and every directory that is empty without it.
    pub(super) fn forget(&self, manifest: &Path) -> io::Result<()> {
        if self.copies == LastGoodCopies::Read {
            return Ok(());
        }
        let (path, files) = (self.path(manifest), self.files());
        match fs::remove_file(&path) {
            Err(error) if !is_absent(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Never above `files`, which the next copy needs.
        let parents = path.ancestors().skip(1).take_while(|parent| parent.starts_with(&files));
        // The first that is not empty ends it.
        parents.take_while(|parent| fs::remove_dir(parent).is_ok()).for_each(drop);
        Ok(())
    }

    /// The manifests below `root` (or `root` itself) of which there are copies, sorted.
    pub(super) fn manifests(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        list(&self.path(root), &mut found)?;
        let files = self.files();
        let mut manifests: Vec<_> =
            found.iter().filter_map(|copy| Some(Path::new("/").join(copy.strip_prefix(&files).ok()?))).collect();
        manifests.sort();
        Ok(manifests)
    }

    /// The directories that were read the last time, by path.
    pub(super) fn roots(&self) -> BTreeMap<String, DirectoryId> {
        // A file that is missing or damaged means that nothing was read before: the directories are then read as new
        // ones.
        let text = fs::read_to_string(self.roots_file()).unwrap_or_default();
        let roots: BTreeMap<String, (u64, u64)> = serde_json::from_str(&text).unwrap_or_default();
        roots.into_iter().map(|(path, (device, inode))| (path, DirectoryId { device, inode })).collect()
    }

    /// Keeps which directories were read.
    pub(super) fn keep_roots(&self, roots: &BTreeMap<String, DirectoryId>) -> io::Result<()> {
        if self.copies == LastGoodCopies::Read || self.roots() == *roots {
            return Ok(());
        }
        self.make_directory(&self.dir)?;
        let roots: BTreeMap<_, _> = roots.iter().map(|(path, id)| (path, (id.device, id.inode))).collect();
        state::write_private(&self.roots_file(), serde_json::to_string(&roots)?.as_bytes(), FILE_MODE)
    }

    fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    fn roots_file(&self) -> PathBuf {
        self.dir.join("roots.json")
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }
}

/// Files below `path` or `path` itself; what another process is about to write is not one.
fn list(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    // Nothing here is a link: one that somebody put there is not followed out of the state directory.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            for entry in fs::read_dir(path)? {
                list(&entry?.path(), found)?;
            }
        }
        Ok(_) if state::is_temporary(path) => {}
        Ok(_) => found.push(path.to_owned()),
        Err(error) if is_absent(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn is_absent(error: &io::Error) -> bool {
    // `NotADirectory`: a manifest is now a file where a directory of manifests was.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn objects(name: &str) -> Vec<Copy> {
        let object = serde_json::json!({"kind": "Pod", "metadata": {"name": name}});
        vec![Copy { since: SystemTime::now(), line: 3, object }]
    }

    #[test]
    fn a_copy_is_private_and_comes_back_as_it_was() {
        let state = tempfile::tempdir().unwrap();
        let copies = LastGood::new(state.path(), LastGoodCopies::Write);
        let manifest = Path::new("/manifests/deep/web.yaml");

        copies.keep(manifest, &objects("one")).unwrap();
        let path = state.path().join("last-good/files/manifests/deep/web.yaml");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let second = objects("two");
        copies.keep(manifest, &second).unwrap();

        assert_eq!(copies.load(manifest).unwrap(), second);
        assert_eq!(mode(&path), 0o600);
        copies.keep(manifest, &[]).unwrap();
        assert!(copies.load(manifest).unwrap().is_empty() && !path.exists());
    }

    #[test]
    fn what_was_deleted_leaves_no_directory_behind() {
        let state = tempfile::tempdir().unwrap();
        let copies = LastGood::new(state.path(), LastGoodCopies::Write);
        for name in ["/m/a/one.yaml", "/m/a/b/two.yaml", "/other/three.yaml"] {
            copies.keep(Path::new(name), &objects("x")).unwrap();
        }
        assert_eq!(copies.manifests(Path::new("/m")).unwrap().len(), 2);
        assert_eq!(copies.manifests(Path::new("/other/three.yaml")).unwrap(), [Path::new("/other/three.yaml")]);

        copies.forget(Path::new("/m/a/b/two.yaml")).unwrap();
        copies.forget(Path::new("/m/a/b/two.yaml")).unwrap();
        assert_eq!(
            copies.manifests(Path::new("/")).unwrap(),
            [Path::new("/m/a/one.yaml"), Path::new("/other/three.yaml")]
        );
        copies.forget(Path::new("/m/a/one.yaml")).unwrap();

        assert!(!copies.path(Path::new("/m")).exists());
        assert!(copies.load(Path::new("/m/a/one.yaml")).unwrap().is_empty());
    }

    #[test]
    fn a_reader_that_does_not_keep_copies_writes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let copies = LastGood::new(state.path(), LastGoodCopies::Read);

        copies.keep(Path::new("/m/a.yaml"), &objects("x")).unwrap();
        copies.keep_roots(&BTreeMap::from([("/m".to_owned(), DirectoryId::of(state.path()).unwrap())])).unwrap();

        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_are_recognised() {
        let state = tempfile::tempdir().unwrap();
        let copies = LastGood::new(state.path(), LastGoodCopies::Write);
        let roots = BTreeMap::from([("/m".to_owned(), DirectoryId::of(state.path()).unwrap())]);

        copies.keep_roots(&roots).unwrap();

        assert_eq!(copies.roots(), roots);
        assert_eq!(mode(&state.path().join("last-good/roots.json")), 0o600);
    }
}
