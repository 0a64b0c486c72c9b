//! Checks of this machine, on which a lab runs.

use std::path::Path;

use rustix::system::uname;

use super::{Line, kernel};

/// Type information of the running kernel.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Present at the root of cgroup v2, alone or beside v1.
const CGROUP_V2: [&str; 2] = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];

pub(super) fn checks() -> Vec<Line> {
    let release = uname().release().to_string_lossy().into_owned();
    vec![kernel("kernel", &release), btf(Path::new(BTF)), cgroups(&CGROUP_V2.map(Path::new))]
}

fn btf(path: &Path) -> Line {
    if path.exists() {
        return Line::ok("type information of the kernel", path.display().to_string());
    }
    let found = format!("{} does not exist", path.display());
    Line::error("type information of the kernel", found, "use a kernel that is built with CONFIG_DEBUG_INFO_BTF=y")
}

fn cgroups(paths: &[&Path]) -> Line {
    match paths.iter().find(|path| path.exists()) {
        Some(path) => Line::ok("cgroup v2", path.parent().unwrap_or(path).display().to_string()),
        None => {
            Line::error("cgroup v2", "not mounted", "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn what_is_missing_is_an_error() {
        let nowhere = Path::new("/nowhere/at/all");

        assert_eq!(btf(nowhere).outcome, Outcome::Error);
        assert_eq!(cgroups(&[nowhere]).outcome, Outcome::Error);
        assert_eq!(cgroups(&[nowhere, Path::new("/proc/self")]).outcome, Outcome::Ok);
    }
}
