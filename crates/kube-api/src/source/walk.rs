//! Finds the files of a directory of manifests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directories deeper than this are not searched; it ends loops of symbolic links.
const MAX_DEPTH: usize = 32;

/// Files of manifests below `root` (or `root` itself), sorted. Names that begin with a dot are not
/// searched, nor is the directory `except`.
pub(crate) fn manifests(root: &Path, except: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if fs::metadata(root)?.is_file() {
        found.push(root.to_owned());
    } else {
        walk(root, except, MAX_DEPTH, &mut found)?;
        found.sort();
    }
    Ok(found)
}

fn walk(dir: &Path, except: Option<&Path>, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_hidden(&path) || except == Some(path.as_path()) {
            continue;
        }
        // What vanished between the listing and now is simply not there.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth > 0 {
            match walk(&path, except, depth - 1, found) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        } else if metadata.is_file() && is_manifest(&path) {
            found.push(path);
        }
    }
    Ok(())
}

pub(crate) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
