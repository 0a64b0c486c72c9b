//! The node's cgroup tree: which process is in which cgroup, and which pod a cgroup belongs to.
//! It only reads; programs are attached by `ebpf_loader`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A process and the cgroup directory that lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub pid: u32,
    pub cgroup: PathBuf,
}

/// The cgroup v2 directory that holds everything of this node (`--cgroup-root`).
#[derive(Debug, Clone)]
pub struct CgroupTree {
    root: PathBuf,
}

impl CgroupTree {
    /// `root` is not read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every process at or below the root, each with the cgroup it sits in.
    ///
    /// A cgroup that goes away meanwhile is left out, and so is a threaded one, whose processes the kernel lists for the
    /// cgroup above it.
    ///
    /// # Errors
    /// When the root or one of the cgroups cannot be read: a process that is not in the list does not exist.
    pub fn members(&self) -> io::Result<Vec<Member>> {
        let mut members = Vec::new();
        // A root that is not there is an error; a cgroup below it that has gone is not.
        fs::read_dir(&self.root)?;
        // A list of its own instead of recursion: containers make trees as deep as they like.
        let mut pending = vec![self.root.clone()];
        while let Some(cgroup) = pending.pop() {
            match read(&cgroup) {
                Ok((pids, children)) => {
                    members.extend(pids.into_iter().map(|pid| Member { pid, cgroup: cgroup.clone() }));
                    pending.extend(children);
                }
                Err(error) if has_gone(&error) => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", cgroup.display()))),
            }
        }
        Ok(members)
    }

    /// The cgroup of one process; `None` when it is not at or below the root.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn cgroup_of(&self, pid: u32) -> io::Result<Option<PathBuf>> {
        Ok(self.members()?.into_iter().find(|member| member.pid == pid).map(|member| member.cgroup))
    }

    /// The uid of the pod that a cgroup below the root belongs to, hyphens as separators.
    pub fn pod_uid(&self, cgroup: &Path) -> Option<String> {
        Some(self.pod_component(cgroup)?.1)
    }

    /// The cgroup of the whole pod that contains `cgroup`: containers come and go below it.
    pub fn pod_cgroup(&self, cgroup: &Path) -> Option<PathBuf> {
        Some(self.pod_component(cgroup)?.0)
    }

    /// The component where the kubelet puts pods: right below the outermost `kubepods`, or below one of its QoS
    /// classes. What a pod makes further in, where it may write, names nobody.
    fn pod_component(&self, cgroup: &Path) -> Option<(PathBuf, String)> {
        let below = cgroup.strip_prefix(&self.root).ok()?;
        let mut path = self.root.clone();
        let mut parent: Option<&str> = None;
        for component in below.components() {
            path.push(component);
            let name = component.as_os_str().to_str()?;
            match parent {
                None if is_kubepods(name) => parent = Some(name),
                // Above `kubepods`: slices of the kubelet or of a container in which the node runs.
                None => {}
                Some(above) if is_kubepods(above) && is_class_of(above, name) => parent = Some(name),
                Some(above) => return uid_in(above, name).map(|uid| (path, uid)),
            }
        }
        None
    }
}

/// Processes of one cgroup and the cgroups below it.
fn read(cgroup: &Path) -> io::Result<(Vec<u32>, Vec<PathBuf>)> {
    let listed = match fs::read_to_string(cgroup.join("cgroup.procs")) {
        // Removed since it was listed; then it has no children either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        // A threaded cgroup.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => String::new(),
        listed => listed?,
    };
    // 0: a process of a pid namespace that we do not see.
    let pids = listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect();
    let mut children = Vec::new();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok((pids, children))
}

/// Removed since it was listed; `ENODEV` when it was open already.
fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The cgroup of all pods: `kubepods` of the kubelet's cgroupfs driver, `kubepods.slice` of the systemd one, which
/// puts the slices around it into the name (kind: `kubelet-kubepods.slice`).
fn is_kubepods(name: &str) -> bool {
    let slice = name.strip_suffix(".slice").and_then(|stem| stem.strip_suffix("kubepods"));
    name == "kubepods" || slice.is_some_and(|around| around.is_empty() || around.ends_with('-'))
}

/// `burstable` in `kubepods`, `kubepods-burstable.slice` in `kubepods.slice`.
fn is_class_of(kubepods: &str, name: &str) -> bool {
    matches!(within(kubepods, name), Some("burstable" | "besteffort"))
}

/// `pod<uid>` of the cgroupfs driver, `<parent>-pod<uid>.slice` of the systemd one, which writes `_` for `-`.
fn uid_in(parent: &str, name: &str) -> Option<String> {
    let uid = within(parent, name)?.strip_prefix("pod")?;
    // A static pod's uid is a hash without hyphens, so that the form of a UUID is not required.
    let plausible = uid.len() >= 8 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    plausible.then(|| canonical_uid(uid))
}

/// Part that a cgroup adds to the name of its parent, in the way of the parent's driver.
fn within<'a>(parent: &str, name: &'a str) -> Option<&'a str> {
    match parent.strip_suffix(".slice") {
        Some(stem) => name.strip_suffix(".slice")?.strip_prefix(stem)?.strip_prefix('-'),
        None => Some(name),
    }
}

/// A uid with the one separator that all cgroup drivers are reduced to.
pub fn canonical_uid(uid: &str) -> String {
    uid.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c7f2a0e-5b7e-4b53-9a55-1c1a2f3b4c5d";

    #[test]
    fn the_layouts_of_both_cgroup_drivers_name_the_pod() {
        let tree = CgroupTree::new("/cg/node-1");
        let systemd = UID.replace('-', "_");
        for (path, pod) in [
            (format!("/cg/node-1/kubepods/pod{UID}/app"), format!("/cg/node-1/kubepods/pod{UID}")),
            (
                format!("/cg/node-1/kubepods/burstable/pod{UID}/abcdef"),
                format!("/cg/node-1/kubepods/burstable/pod{UID}"),
            ),
            (
                format!(
                    "/cg/node-1/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice/crio-12.scope"
                ),
                format!("/cg/node-1/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice"),
            ),
        ] {
            assert_eq!(tree.pod_uid(Path::new(&path)).as_deref(), Some(UID), "{path}");
            assert_eq!(tree.pod_cgroup(Path::new(&path)), Some(PathBuf::from(pod)));
        }
    }

    #[test]
    fn a_cgroup_that_a_pod_made_itself_does_not_name_another_pod() {
        let tree = CgroupTree::new("/cg/node-1");
        let systemd = UID.replace('-', "_");
        let other = "deadbeef-5b7e-4b53-9a55-1c1a2f3b4c5d";
        for (pod, inner) in [
            (format!("kubepods/pod{UID}"), format!("pod{other}")),
            (format!("kubepods/burstable/pod{UID}"), format!("app/kubepods/pod{other}/app")),
            (
                format!("kubepods.slice/kubepods-pod{systemd}.slice"),
                format!("cri-1.scope/kubepods.slice/kubepods-pod{other}.slice"),
            ),
            (
                format!(
                    "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{systemd}.slice"
                ),
                format!("x/pod{other}"),
            ),
        ] {
            let pod = Path::new("/cg/node-1").join(pod);
            let path = pod.join(inner);

            assert_eq!(tree.pod_uid(&path).as_deref(), Some(UID), "{}", path.display());
            assert_eq!(tree.pod_cgroup(&path), Some(pod));
        }
    }

    #[test]
    fn other_cgroups_name_no_pod() {
        let tree = CgroupTree::new("/cg/node-1");
        for path in [
            "/cg/node-1",
            "/cg/node-1/kubepods",
            "/cg/node-1/kubelet",
            "/cg/node-1/tripod-of-mine",
            "/cg/other/podab",
            "/cg/node-1/system/pod0c7f2a0e-5b7e",
            "/cg/node-1/kubepods/mine/pod0c7f2a0e-5b7e",
            "/cg/node-1/kubepods.slice/pod0c7f2a0e-5b7e",
            "/cg/node-1/kubepods/burstable/burstable/pod0c7f2a0e-5b7e",
            "/cg/node-1/kubepods.slice/mine-pod0c7f2a0e.slice",
        ] {
            assert_eq!(tree.pod_uid(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn processes_are_found_in_nested_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("kubepods/podx/app");
        fs::create_dir_all(&inner).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
        fs::write(inner.join("cgroup.procs"), "42\n0\n43\n").unwrap();
        let tree = CgroupTree::new(dir.path());

        assert_eq!(tree.cgroup_of(43).unwrap(), Some(inner));
        assert_eq!(tree.cgroup_of(1).unwrap(), Some(dir.path().to_owned()));
        assert_eq!(tree.cgroup_of(44).unwrap(), None);
        assert_eq!(tree.members().unwrap().len(), 3);
    }

    #[test]
    fn a_cgroup_that_cannot_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("kubepods");
        fs::create_dir(&inner).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
        let tree = CgroupTree::new(dir.path());
        assert_eq!(tree.members().unwrap().len(), 1);

        fs::create_dir(inner.join("cgroup.procs")).unwrap();

        let error = tree.members().unwrap_err();
        assert!(error.to_string().contains("kubepods"), "{error}");
    }
}
