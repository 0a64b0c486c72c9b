//! Cgroups as the kernel's links know them: by id.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::fstatfs;

use crate::LoadError;

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// An open directory of the cgroup v2 hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    file: File,
    path: PathBuf,
    id: u64,
}

impl Cgroup {
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = || LoadError::kernel("open the cgroup", path.display());
        let path = path.canonicalize().map_err(failed())?;
        let file = File::open(&path).map_err(failed())?;
        let filesystem = fstatfs(&file).map_err(|err| failed()(err.into()))?;
        if filesystem.f_type as u64 != CGROUP2_MAGIC {
            return Err(LoadError::NotCgroup2 { path });
        }
        let id = file.metadata().map_err(failed())?.ino();
        Ok(Self { file, path, id })
    }

    /// The inode of its directory (kernfs uses the id for it).
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Strictly below `other`?
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.id != other.id && self.path.starts_with(&other.path)
    }
}

/// Is there a cgroup with this id at `directory` or below it? What cannot be read does not count.
pub(crate) fn exists(directory: &Path, id: u64) -> bool {
    let is_it = directory.metadata().is_ok_and(|metadata| metadata.ino() == id);
    is_it
        || fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()) && exists(&entry.path(), id))
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
