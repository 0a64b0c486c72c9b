//! Can this kernel, and this process, steer? Asked before anything is loaded, so that the answer
//! names what is missing instead of a failed system call.

use std::{fs::File, path::Path};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use rustix::system::uname;

/// The oldest kernel with everything the programs use (`ingress_ifindex` in `sk_lookup`).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 17);

/// Requirement that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Too old altogether.
    #[error("kernel {found} is too old: Linux {}.{} or newer is needed", MINIMUM_KERNEL.0, MINIMUM_KERNEL.1)]
    Kernel {
        /// `uname -r`.
        found: String,
    },
    /// Configured away, or a distribution's older backport.
    #[error("the kernel ({found}) lacks {feature}: it came with Linux {since} and needs {option}")]
    Feature {
        /// `uname -r`.
        found: String,
        /// Feature that is missing.
        feature: &'static str,
        /// Since when it exists.
        since: &'static str,
        /// Kernel option that switches it on.
        option: &'static str,
    },
    /// The process may not do it.
    #[error("not permitted to load kernel programs: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Permission,
    /// No cgroup v2.
    #[error("no cgroup v2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")]
    Cgroup2,
    /// No type information of the kernel.
    #[error("/sys/kernel/btf/vmlinux is missing: the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Btf,
}

/// Proves with the kernel itself that program and map types are there.
///
/// # Errors
/// The first thing that is missing.
pub fn kernel() -> Result<(), Unsupported> {
    let found = uname().release().to_string_lossy().into_owned();
    // The number comes first because it says most to a reader. A kernel with a new number may still be built without a
    // feature, so each is tried below.
    if release(&found).is_some_and(|version| version < MINIMUM_KERNEL) {
        return Err(Unsupported::Kernel { found });
    }
    runtime::sys::cgroup2_mount().map_err(|_| Unsupported::Cgroup2)?;
    File::open(Path::new("/sys/kernel/btf/vmlinux")).map_err(|_| Unsupported::Btf)?;
    let programs = [
        (ProgramType::CgroupSockAddr, "cgroup/connect programs", "4.17", "CONFIG_CGROUP_BPF"),
        (ProgramType::CgroupSkb, "cgroup_skb programs", "4.10", "CONFIG_CGROUP_BPF"),
        (ProgramType::CgroupSock, "cgroup/sock_create programs", "4.10", "CONFIG_CGROUP_BPF"),
        (ProgramType::SockOps, "sockops programs", "4.13", "CONFIG_CGROUP_BPF"),
        (ProgramType::SkLookup, "sk_lookup programs", "5.9", "CONFIG_BPF_SYSCALL and CONFIG_INET"),
    ];
    for (kind, feature, since, option) in programs {
        if !is_program_supported(kind).map_err(|_| Unsupported::Permission)? {
            return Err(Unsupported::Feature { found, feature, since, option });
        }
    }
    let maps = [
        (MapType::SockHash, "socket hash maps", "4.18", "CONFIG_BPF_STREAM_PARSER or CONFIG_NET_SOCK_MSG"),
        (MapType::SkStorage, "socket storage maps", "5.2", "CONFIG_BPF_SYSCALL"),
    ];
    for (kind, feature, since, option) in maps {
        if !is_map_supported(kind).map_err(|_| Unsupported::Permission)? {
            return Err(Unsupported::Feature { found, feature, since, option });
        }
    }
    Ok(())
}

/// The first two numbers of `uname -r`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(release("6.18.44"), Some((6, 18)));
        assert_eq!(release("5.15.0-105-generic"), Some((5, 15)));
        assert_eq!(release("6.1-rc3"), Some((6, 1)));
        assert_eq!(release("unknown"), None);
    }

    #[test]
    fn errors_name_what_is_needed() {
        let old = Unsupported::Kernel { found: "5.4.0".into() };

        assert_eq!(old.to_string(), "kernel 5.4.0 is too old: Linux 5.17 or newer is needed");
    }
}
