//! Settings of the kernel, below `sys` of a proc file system that only this process has. Container runtimes make `/proc/sys`
//! read-only for containers that are not privileged; what may be written is decided by capabilities, not by that mount.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Reads a setting by its path below `/proc/sys`. Those of the network are of the calling thread's namespace.
pub(crate) fn read(name: &str) -> io::Result<String> {
    let mut value = String::new();
    open(name, OFlags::RDONLY)?.read_to_string(&mut value)?;
    Ok(value)
}

/// Writes a setting by its path below `/proc/sys`, in one write as the kernel wants it.
pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    open(name, OFlags::WRONLY)?.write_all(value.as_bytes())
}

fn open(name: &str, flags: OFlags) -> io::Result<File> {
    let path = Path::new("sys").join(name);
    Ok(openat(root()?, path, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The mount, which is in no directory. Made once: it is the same for every namespace.
fn root() -> io::Result<&'static OwnedFd> {
    static ROOT: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(root) = ROOT.get() {
        return Ok(root);
    }
    let unmounted = |error: rustix::io::Errno| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("mounting proc: {error}"))
    };
    // `fsopen` and `fsmount` need Linux 5.2.
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(unmounted)?;
    fsconfig_create(&context).map_err(unmounted)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(unmounted)?;
    // Another thread may have been faster; either mount will do.
    Ok(ROOT.get_or_init(|| root))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn settings_are_those_of_the_callers_namespace() {
        let Some(netns) = crate::testing::netns() else { return };
        let name = "net/ipv4/tcp_fwmark_accept";
        let here = read(name).unwrap();

        netns.run(|| write(name, "1")).unwrap();

        assert_eq!(netns.run(|| read(name)).unwrap(), "1\n");
        assert_eq!(read(name).unwrap(), here);
        assert_eq!(std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap(), here);
    }

    /// The half of the next test that runs where `/proc/sys` is read-only.
    #[test]
    #[ignore = "run by the next test"]
    fn a_setting_is_written() {
        let name = "net/ipv4/tcp_fwmark_accept";
        assert!(std::fs::write(Path::new("/proc/sys").join(name), "1").is_err(), "/proc/sys can be written");

        write(name, "1").unwrap();

        assert_eq!(read(name).unwrap(), "1\n");
    }

    #[test]
    fn a_read_only_mount_of_proc_does_not_matter() {
        if crate::testing::netns().is_none() {
            return;
        }
        let program = std::env::current_exe().unwrap();
        let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
                      exec \"$0\" --ignored --exact proc_sys::tests::a_setting_is_written";
        let output =
            Command::new("unshare").args(["--mount", "--net", "sh", "-c", script]).arg(program).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);

        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }
}
