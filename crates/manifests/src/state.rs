//! The state directory beside the user's manifests: whole objects that somebody derives, and partial
//! ones that are laid over. Written by replacing files, so that a reader never sees half of one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use kube_types::{Kind, ObjectRef};

/// Directory name that stands for the namespace of cluster-scoped objects.
const CLUSTER_SCOPE: &str = "_cluster";

/// Longest part of a name that becomes a file's name: with what is put around it that has to stay below 256 bytes, and
/// names have up to 253.
const LONGEST_PART: usize = 200;

/// Marks a name that continues below a directory. No Kubernetes name contains it.
const CONTINUED: char = '~';

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("invalid file name {0:?}")]
    Name(String),
    #[error("failed to write {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("failed to write {path} as YAML")]
    Yaml { path: PathBuf, source: Box<serde_saphyr::SerializeError> },
}

/// Writes (or replaces) a whole object below `<state>/objects`.
pub fn write_object(state: &Path, key: &ObjectRef, object: &Value) -> Result<(), WriteError> {
    write_yaml(&object_path(state, key)?, object)
}

/// Removes an object written by [`write_object`]; there need not be one.
pub fn remove_object(state: &Path, key: &ObjectRef) -> Result<(), WriteError> {
    remove(&object_path(state, key)?)
}

/// Path at which [`write_object`] puts an object.
pub fn object_path(state: &Path, key: &ObjectRef) -> Result<PathBuf, WriteError> {
    key_path(objects_dir(state), key)
}

/// Path of the overlay of one writer for one object.
pub fn overlay_path(state: &Path, writer: &str, key: &ObjectRef) -> Result<PathBuf, WriteError> {
    if !is_file_name(writer) {
        return Err(WriteError::Name(writer.to_owned()));
    }
    key_path(overlays_dir(state).join(writer), key)
}

pub(crate) fn objects_dir(state: &Path) -> PathBuf {
    state.join("objects")
}

pub(crate) fn overlays_dir(state: &Path) -> PathBuf {
    state.join("status")
}

pub(crate) fn last_good_dir(state: &Path) -> PathBuf {
    state.join("last-good")
}

/// Writer and key of an overlay's path, the reverse of [`overlay_path`].
pub(crate) fn overlay_key(state: &Path, path: &Path) -> Option<(String, ObjectRef)> {
    let relative = path.strip_prefix(overlays_dir(state)).ok()?;
    let mut parts = relative.iter().map(|part| part.to_str());
    let writer = parts.next()??;
    let kind = parts.next()??.parse::<Kind>().ok()?;
    let namespace = parts.next()??;
    let mut name = parts.next()??.to_owned();
    if let Some(front) = name.strip_suffix(CONTINUED) {
        name = format!("{front}{}", parts.next()??.strip_prefix(CONTINUED)?);
    }
    let name = name.strip_suffix(".yaml")?;
    // Nobody but `overlay_path` makes these names: another depth or scope is a stray file.
    if parts.next().is_some() || (namespace == CLUSTER_SCOPE) == kind.is_namespaced() {
        return None;
    }
    let namespace = if kind.is_namespaced() { namespace } else { "" };
    Some((writer.to_owned(), ObjectRef::new(kind, namespace, name)))
}

fn key_path(root: PathBuf, key: &ObjectRef) -> Result<PathBuf, WriteError> {
    let namespace = if key.kind.is_namespaced() { key.namespace.as_str() } else { CLUSTER_SCOPE };
    for part in [namespace, key.name.as_str()] {
        if !is_file_name(part) {
            return Err(WriteError::Name(part.to_owned()));
        }
    }
    let directory = root.join(key.kind.name()).join(namespace);
    Ok(match key.name.split_at_checked(LONGEST_PART) {
        Some((front, rest)) if !rest.is_empty() => {
            directory.join(format!("{front}{CONTINUED}")).join(format!("{CONTINUED}{rest}.yaml"))
        }
        _ => directory.join(format!("{}.yaml", key.name)),
    })
}

fn is_file_name(part: &str) -> bool {
    !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\0'])
}

pub(crate) fn write_yaml(path: &Path, value: &Value) -> Result<(), WriteError> {
    let text = serde_saphyr::to_string(value)
        .map_err(|source| WriteError::Yaml { path: path.to_owned(), source: Box::new(source) })?;
    // An equal file is not replaced: each replacement wakes every reader of the directory.
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write_atomically(path, text.as_bytes()).map_err(|source| WriteError::Io { path: path.to_owned(), source })
}

/// Replaces a file by renaming a complete one over it; keeps the mode of the old one.
/// Replaces a file as a whole: a reader sees the old text or the new one.
///
/// # Errors
/// When the file beside it cannot be written, or cannot take its place.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let temporary = temporary(path);
    let mut file = fs::File::create(&temporary)?;
    file.write_all(content)?;
    if let Ok(old) = fs::metadata(path) {
        fs::set_permissions(&temporary, old.permissions())?;
    }
    drop(file);
    replace(&temporary, path)
}

/// Writes as [`write_atomically`], into a directory that exists, with this mode from the beginning; on the disk before
/// the old file goes.
pub(crate) fn write_private(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path);
    // One of a process of the same number that was killed may have any mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // `create_new`: never through a link that somebody has put there.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    replace(&temporary, path)
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Returns true if this is a file that is being written, or was when its writer ended.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(b".tmp")
}

fn replace(temporary: &Path, path: &Path) -> io::Result<()> {
    fs::rename(temporary, path).inspect_err(|_| {
        // The error of the renaming counts; what is left is overwritten by the next attempt.
        let _ = fs::remove_file(temporary);
    })
}

pub(crate) fn remove(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(WriteError::Io { path: path.to_owned(), source })
        }
        // Removed, or not there before.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_has_a_path_that_leads_back_to_it() {
        let state = Path::new("/state");
        for length in [1, LONGEST_PART - 1, LONGEST_PART, LONGEST_PART + 1, 253] {
            let key = ObjectRef::new(Kind::Pod, "n".repeat(63), "p".repeat(length));

            let path = overlay_path(state, "lab", &key).unwrap();

            assert_eq!(overlay_key(state, &path), Some(("lab".to_owned(), key)), "{length}");
            assert!(path.iter().all(|part| part.len() + ".4194304.tmp.".len() < 256), "{length}");
        }
    }
}
