//! Finds the files of a directory of manifests. Every tree ends: depth and number are bounded, and no directory is
//! searched twice.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Progress;
use super::last_good::DirectoryId;
use super::read_file;
use kube_types::{Code, Severity, SourceProblem};

/// Directories deeper than this are not searched.
const MAX_DEPTH: usize = 32;

/// Most files of manifests below one directory.
const MAX_FILES: usize = 20_000;

/// Most entries of all directories below one.
const MAX_ENTRIES: usize = 200_000;

/// Files of manifests below a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Sorted.
    pub(crate) files: Vec<PathBuf>,
    /// Problems of what was not searched or is not read.
    pub(crate) skipped: Vec<SourceProblem>,
    /// Paths below which nothing is known: files there are not deleted because they are not in the list.
    pub(crate) unknown: Vec<PathBuf>,
}

impl Found {
    fn skip(&mut self, path: &Path, code: Code, severity: Severity, message: impl Into<String>) {
        self.skipped.push(SourceProblem::of_file(path, code, message).with_severity(severity));
    }

    fn lose(&mut self, path: &Path, code: Code, message: impl Into<String>) {
        self.skip(path, code, Severity::Error, message);
        self.unknown.push(path.to_owned());
    }
}

/// Files of manifests below `root` (or `root` itself). Names that begin with a dot are not searched, nor is the directory
/// `except`.
pub(crate) fn manifests(root: &Path, except: Option<DirectoryId>, progress: &Progress) -> io::Result<Found> {
    let metadata = fs::metadata(root)?;
    let mut found = Found::default();
    if !metadata.is_dir() {
        // A file that the user names is read whatever its name is.
        found.files.push(root.to_owned());
        return Ok(found);
    }
    let mut walk = Walk { found, seen: except.into_iter().collect(), entries: 0, progress };
    // A link below the root that leads back to it would be searched without end.
    walk.seen.insert(DirectoryId::from(&metadata));
    walk.search(root, MAX_DEPTH)?;
    walk.found.files.sort();
    Ok(walk.found)
}

struct Walk<'a> {
    found: Found,
    /// Directories that are searched, or must not be.
    seen: HashSet<DirectoryId>,
    entries: usize,
    progress: &'a Progress,
}

impl Walk<'_> {
    fn search(&mut self, dir: &Path, depth: usize) -> io::Result<()> {
        self.progress.at(dir);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                let message = format!("more than {MAX_ENTRIES} entries: the rest is not searched");
                // `lose`: files that are not listed any more must not count as deleted.
                self.found.lose(dir, Code::TooLarge, message);
                break;
            }
            let entry = entry?;
            let path = entry.path();
            if !is_hidden(&path) {
                // Real directories come before links to them: a link to one that has its own place adds nothing.
                entries.push((entry.file_type().is_ok_and(|sort| sort.is_symlink()), path));
            }
        }
        // `false` sorts before `true`; then by name, so that the result does not depend on the file system's order.
        entries.sort();
        for (is_link, path) in entries {
            self.entry(&path, is_link, depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, is_link: bool, depth: usize) {
        self.progress.at(path);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path, &metadata, depth),
            Ok(_) if !is_manifest(path) => {}
            Ok(metadata) => match read_file::sort(&metadata) {
                Some(sort) => {
                    let message = format!("{sort}, not a regular file: it is skipped");
                    self.found.skip(path, Code::NotAFile, Severity::Warning, message);
                }
                None if self.found.files.len() >= MAX_FILES => {
                    if self.found.files.len() == MAX_FILES {
                        let message = format!("more than {MAX_FILES} manifests: this and those after it are not read");
                        self.found.lose(path.parent().unwrap_or(path), Code::TooLarge, message);
                    }
                }
                None => self.found.files.push(path.to_owned()),
            },
            // A file that was removed between the listing and now is simply not there; a link that leads nowhere is.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link => {}
            Err(error) if is_link && !is_manifest(path) && error.kind() == io::ErrorKind::NotFound => {
                // A link without a manifest's name may have led to a directory of manifests: that is not known any
                // more.
                self.found.unknown.push(path.to_owned());
            }
            Err(error) => self.found.lose(path, Code::Unreadable, unreadable(is_link, &error)),
        }
    }

    fn directory(&mut self, path: &Path, metadata: &Metadata, depth: usize) {
        if !self.seen.insert(DirectoryId::from(metadata)) {
            self.found.skip(
                path,
                Code::SameDirectory,
                Severity::Note,
                "is searched under another name already: it is skipped",
            );
        } else if depth == 0 {
            let message = format!("more than {MAX_DEPTH} directories deep: it is not searched");
            self.found.lose(path, Code::TooLarge, message);
        } else if let Err(error) = self.search(path, depth - 1)
            // It was deleted since it was listed.
            && error.kind() != io::ErrorKind::NotFound
        {
            self.found.lose(path, Code::Unreadable, unreadable(false, &error));
        }
    }
}

fn unreadable(is_link: bool, error: &io::Error) -> String {
    if is_link && error.kind() == io::ErrorKind::NotFound {
        "a link to a file that does not exist: its last good state stays in force".to_owned()
    } else {
        format!("failed to read: {error}")
    }
}

pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn found(root: &Path) -> Found {
        manifests(root, None, &Progress::default()).unwrap()
    }

    fn names(root: &Path, found: &Found) -> Vec<String> {
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        found.files.iter().map(relative).collect()
    }

    #[test]
    fn a_tree_of_links_without_an_end_is_searched_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("deep/er")).unwrap();
        fs::write(root.join("deep/er/pod.yaml"), "").unwrap();
        for link in ["a", "b", "deep/c", "deep/er/d", "deep/er/e"] {
            symlink(root, root.join(link)).unwrap();
        }
        symlink("deep/er", root.join("also")).unwrap();

        let found = found(root);

        assert_eq!(names(root, &found), ["deep/er/pod.yaml"]);
        assert_eq!(found.skipped.len(), 6);
        assert!(found.skipped.iter().all(|skipped| skipped.code == Code::SameDirectory), "{:?}", found.skipped);
        assert_eq!(found.unknown, Vec::<PathBuf>::new());
    }

    #[test]
    fn a_tree_that_is_too_deep_is_cut_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let deep = (0..40).fold(dir.path().to_owned(), |path, _| path.join("d"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("pod.yaml"), "").unwrap();

        let found = found(dir.path());

        assert_eq!(found.files, Vec::<PathBuf>::new());
        assert_eq!(found.skipped.iter().map(|skipped| skipped.code).collect::<Vec<_>>(), [Code::TooLarge]);
        assert!(found.unknown.len() == 1 && deep.starts_with(&found.unknown[0]), "{:?}", found.unknown);
    }

    #[test]
    fn only_regular_files_are_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe.yaml"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        let _socket = UnixListener::bind(root.join("socket.yml")).unwrap();
        symlink("/dev/zero", root.join("zero.json")).unwrap();
        symlink("gone", root.join("lost.yaml")).unwrap();
        fs::write(root.join("good.json"), "").unwrap();
        fs::write(root.join("notes.txt"), "").unwrap();
        symlink("good.json", root.join("link.yaml")).unwrap();

        let found = found(root);

        assert_eq!(names(root, &found), ["good.json", "link.yaml"]);
        let mut skipped: Vec<_> = found
            .skipped
            .iter()
            .map(|skipped| (skipped.file.file_name().unwrap().to_str().unwrap(), skipped.code, &*skipped.message))
            .collect();
        skipped.sort();
        assert_eq!(
            skipped,
            [
                (
                    "lost.yaml",
                    Code::Unreadable,
                    "a link to a file that does not exist: its last good state stays in force"
                ),
                ("pipe.yaml", Code::NotAFile, "a named pipe, not a regular file: it is skipped"),
                ("socket.yml", Code::NotAFile, "a socket, not a regular file: it is skipped"),
                ("zero.json", Code::NotAFile, "a device, not a regular file: it is skipped"),
            ]
        );
    }
}
