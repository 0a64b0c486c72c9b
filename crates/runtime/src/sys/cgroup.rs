//! Mount points of cgroups v2.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The mount point of the cgroup v2 hierarchy that this process sees, whole or from the root of
/// its cgroup namespace on. Beside v1 it is often `/sys/fs/cgroup/unified`, so it is never guessed.
///
/// # Errors
/// `NotFound` when none is mounted.
pub fn cgroup2_mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    find(&mounts)
        .map(Path::to_path_buf)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup v2 hierarchy is mounted"))
}

/// proc_pid_mountinfo(5): the root of the mount and the mount point are fields 4 and 5, the
/// file system's type is the first field after the dash. The shortest path is the least nested one.
fn find(mountinfo: &str) -> Option<&Path> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            (filesystem.split(' ').next() == Some("cgroup2") && root == "/").then_some(Path::new(point))
        })
        .min_by_key(|path| path.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_beside_version_1() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

        assert_eq!(find(mounts), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_mount_of_a_part_of_it_does_not_count() {
        let mounts = "32 30 0:28 /system /mnt/part rw - cgroup2 cgroup2 rw\n";

        assert_eq!(find(mounts), None);
    }
}
