//! Cgroups as the kernel's links know them: by id.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
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
        // `is_below` compares paths, so links in them must be resolved first.
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

/// The ids of the cgroup at `root` and of all below it; those that go away meanwhile do not count.
///
/// # Errors
/// When one cannot be read: whoever takes a cgroup for gone takes its programs away.
pub(crate) fn ids(root: &Path) -> Result<HashSet<u64>, LoadError> {
    let mut ids = HashSet::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        match read(&directory) {
            Ok((id, children)) => {
                ids.insert(id);
                pending.extend(children);
            }
            // The second: its directory was open when it was removed.
            Err(err) if err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(libc::ENODEV) => {}
            Err(err) => return Err(LoadError::kernel("read the cgroup", directory.display())(err)),
        }
    }
    Ok(ids)
}

fn read(directory: &Path) -> io::Result<(u64, Vec<PathBuf>)> {
    let id = directory.metadata()?.ino();
    let mut children = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok((id, children))
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
