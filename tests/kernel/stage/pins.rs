//! A bpf file system of the stage's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use aya::programs::links::{FdLink, PinnedLink};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const BASE: &str = "/run/strake-kernel";

/// Mounted below `/run`, unmounted when dropped.
pub(crate) struct Pins {
    directory: PathBuf,
}

impl Pins {
    pub(crate) fn new(number: u32) -> Self {
        sweep();
        let directory = Path::new(BASE).join(format!("{}-{number}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        mount("bpf", &directory, "bpf", MountFlags::empty(), None).unwrap();
        Self { directory }
    }

    /// Made by the loader; beside it the kernel may have put files of its own.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// Every path below it.
    pub(crate) fn list(&self) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let mut directories = vec![self.directory()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path.clone());
                }
                paths.push(path);
            }
        }
        paths
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

/// Removes the pin of a link, which lives on with what is returned.
pub(crate) fn unpin(pin: &Path) -> FdLink {
    PinnedLink::from_pin(pin).unwrap().unpin().unwrap()
}

fn remove(directory: &Path) {
    let _ = unmount(directory, UnmountFlags::DETACH);
    let _ = fs::remove_dir(directory);
    let _ = fs::remove_dir(BASE);
}

/// Removes mounts of test processes that were killed.
fn sweep() {
    for entry in fs::read_dir(BASE).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.split('-').next().is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}
