//! Files of the node, each replaced as a whole: whoever reads them meanwhile finds the old one or the new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cni::conflist;

/// Replaces a file unless it has this content and mode. Returns true if it was replaced.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    if is(path, bytes, mode)? {
        return Ok(false);
    }
    let temporary = temporary(path);
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&temporary)?;
    // One that a killed agent left has the mode of then.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_directory(path)?;
    Ok(true)
}

fn is(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o7777 == mode => {
            Ok(metadata.len() == bytes.len() as u64 && fs::read(path)? == bytes)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A name in the same directory that neither container runtimes nor kubelets read.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Removes a file. Returns true if there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Configurations of a directory. A file that vanishes meanwhile is none; any other failure says nothing about what there is.
pub(super) fn configurations(directory: &Path) -> io::Result<Vec<conflist::File>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !conflist::is_configuration(name) || path.is_dir() {
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => found.push(conflist::File { name: name.to_owned(), bytes }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");

        assert!(replace(&path, b"one", 0o600).unwrap());
        assert!(!replace(&path, b"one", 0o600).unwrap());
        assert!(replace(&path, b"two", 0o600).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(replace(&path, b"two", 0o600).unwrap(), "the mode differs");

        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_a_killed_agent_left_is_no_configuration_and_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.conflist");
        fs::write(temporary(&path), b"{\"half").unwrap();

        assert!(configurations(dir.path()).unwrap().is_empty());
        replace(&path, b"{}", 0o600).unwrap();

        assert_eq!(configurations(dir.path()).unwrap().len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_by_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = (dir.path().join("target"), dir.path().join("a"));
        fs::write(&target, b"target").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();

        assert!(replace(&path, b"target", 0o644).unwrap());

        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read(&target).unwrap(), b"target");
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_an_error() {
        assert!(configurations(Path::new("/nowhere")).is_err());
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("10-gone.conflist")).unwrap();
        assert!(configurations(dir.path()).unwrap().is_empty());
    }
}
