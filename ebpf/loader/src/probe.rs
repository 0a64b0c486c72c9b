//! Can this kernel, and this process, steer? Asked before anything is loaded, so that the answer
//! names what is missing instead of a failed system call.

use std::fs::File;

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use rustix::system::uname;

/// The oldest kernel with everything the programs use (`ingress_ifindex` in `sk_lookup`).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 17);

/// Type information of the kernel.
const BTF: &str = "/sys/kernel/btf/vmlinux";

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

/// Something that the mesh needs of a kernel.
#[derive(Debug)]
pub struct Feature {
    /// Stable lower-case name.
    pub name: &'static str,
    /// What was found, for a reader, or what is missing.
    pub found: Result<String, Unsupported>,
}

/// Proves with the kernel itself that program and map types are there.
///
/// # Errors
/// The first thing that is missing.
pub fn kernel() -> Result<(), Unsupported> {
    features().into_iter().try_for_each(|feature| feature.found.map(drop))
}

/// Everything that is needed, each with what the kernel itself says of it. The number of the release comes first because it says
/// most to a reader; a kernel with a new number may still be built without a feature, so each is tried.
#[must_use]
pub fn features() -> Vec<Feature> {
    let release = uname().release().to_string_lossy().into_owned();
    let mut features = vec![
        Feature { name: "release", found: new_enough(&release) },
        Feature {
            name: "cgroup2",
            found: runtime::sys::cgroup2_mount()
                .map(|mount| mount.display().to_string())
                .map_err(|_| Unsupported::Cgroup2),
        },
        Feature { name: "btf", found: File::open(BTF).map(|_| BTF.to_owned()).map_err(|_| Unsupported::Btf) },
    ];
    let missing = |feature, since, option| Unsupported::Feature { found: release.clone(), feature, since, option };
    for (name, kind, feature, since, option) in [
        ("cgroup_sock_addr", ProgramType::CgroupSockAddr, "cgroup/connect programs", "4.17", "CONFIG_CGROUP_BPF"),
        ("cgroup_skb", ProgramType::CgroupSkb, "cgroup_skb programs", "4.10", "CONFIG_CGROUP_BPF"),
        ("cgroup_sock", ProgramType::CgroupSock, "cgroup/sock_create programs", "4.10", "CONFIG_CGROUP_BPF"),
        ("sock_ops", ProgramType::SockOps, "sockops programs", "4.13", "CONFIG_CGROUP_BPF"),
        ("sk_lookup", ProgramType::SkLookup, "sk_lookup programs", "5.9", "CONFIG_BPF_SYSCALL and CONFIG_INET"),
    ] {
        let found = match is_program_supported(kind) {
            Ok(true) => Ok(feature.to_owned()),
            Ok(false) => Err(missing(feature, since, option)),
            Err(_) => Err(Unsupported::Permission),
        };
        features.push(Feature { name, found });
    }
    for (name, kind, feature, since, option) in [
        ("sock_hash", MapType::SockHash, "socket hash maps", "4.18", "CONFIG_BPF_STREAM_PARSER or CONFIG_NET_SOCK_MSG"),
        ("sk_storage", MapType::SkStorage, "socket storage maps", "5.2", "CONFIG_BPF_SYSCALL"),
    ] {
        let found = match is_map_supported(kind) {
            Ok(true) => Ok(feature.to_owned()),
            Ok(false) => Err(missing(feature, since, option)),
            Err(_) => Err(Unsupported::Permission),
        };
        features.push(Feature { name, found });
    }
    features
}

fn new_enough(found: &str) -> Result<String, Unsupported> {
    if release(found).is_some_and(|version| version < MINIMUM_KERNEL) {
        return Err(Unsupported::Kernel { found: found.to_owned() });
    }
    Ok(format!("Linux {found}"))
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
    fn a_release_that_is_too_old_is_missing_and_one_that_is_not_understood_is_tried() {
        assert!(matches!(new_enough("5.15.0-105-generic"), Err(Unsupported::Kernel { .. })));
        assert_eq!(new_enough("5.17.0").unwrap(), "Linux 5.17.0");
        assert!(new_enough("custom").is_ok());
    }

    #[test]
    fn errors_name_what_is_needed() {
        let old = Unsupported::Kernel { found: "5.4.0".into() };

        assert_eq!(old.to_string(), "kernel 5.4.0 is too old: Linux 5.17 or newer is needed");
    }
}
