//! Paths of a lab's files and cgroups. It creates nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Parent of the run directories of all labs.
const RUN_ROOT: &str = "/run/strake/lab";

/// Longest name of a lab: its unix sockets' paths must fit into 107 bytes.
pub const MAX_NAME: usize = 32;

/// Longest name of a node's directory, for the same reason: `/run/strake/lab/NAME/nodes/NODE/ztunnel/admin.sock`.
const MAX_NODE_DIR: usize = 32;

/// Cgroup of a pod's first process. No container can have this name.
pub(crate) const PAUSE: &str = "_pause";

/// Cgroup of a lab's supervisor. No node can have this name.
const SUPERVISOR: &str = "_supervisor";

/// Environment variable that names the cgroup that the lab's first process was started in.
pub(crate) const HOME_VARIABLE: &str = "STRAKE_LAB_HOME_CGROUP";

/// The files of one lab, below `/run/strake/lab/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The directory of the lab `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { root: Path::new(RUN_ROOT).join(name) }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("ctl.sock")
    }

    /// A file beside the directory that is locked as long as the lab lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.with_extension("lock")
    }

    /// Process id of the lab's process 1 as its starter saw it; SIGKILL to it ends everything.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("supervisor.pid")
    }

    /// Log of the supervisor itself.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// Manifests that the lab brought along, to be edited while it runs.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    /// Derived objects and status overlays, as `manifests::Source` reads them.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Output of the containers.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Output of one container, over all its restarts.
    #[must_use]
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.logs().join(namespace).join(pod).join(format!("{container}.log"))
    }

    /// Directory of the files that one node's programs share: `bpffs`, `zds`, `ztunnel`, `agent`.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join("nodes").join(short(node))
    }

    /// Directory that pods of a node see as the node's file system.
    #[must_use]
    pub fn host(&self, node: &str) -> PathBuf {
        self.node(node).join("host")
    }

    /// Directories of the PersistentVolumeClaims of a namespace.
    #[must_use]
    pub fn claims(&self, namespace: &str) -> PathBuf {
        self.root.join("claims").join(namespace)
    }

    /// The socket on which a node's agent answers CNI plugins.
    #[must_use]
    pub fn plugin_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("agent").join(contract::cni::SOCKET_NAME)
    }

    /// The control plane's files: certificate authority, node tokens.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// Files that the lab makes for one pod: `resolv.conf`, `hosts`, volumes.
    #[must_use]
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// Files of all pods.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Captures.
    #[must_use]
    pub fn captures(&self) -> PathBuf {
        self.root.join("pcap")
    }
}

/// A node's name, or what stands for it where it would be too long for the path of a unix socket.
pub(crate) fn short(node: &str) -> String {
    if node.len() <= MAX_NODE_DIR {
        return node.to_owned();
    }
    // Names are ASCII: each byte is a character. `_` is in no name, so nothing else is called so.
    let digest = format!("_{:016x}", xxhash_rust::xxh64::xxh64(node.as_bytes(), 0));
    format!("{}{digest}", node.get(..MAX_NODE_DIR - digest.len()).unwrap_or_default())
}

/// The cgroups of one lab, below `<cgroup2>/strake-lab-<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// The tree of the lab `name`, wherever cgroup v2 is mounted on this machine.
    ///
    /// # Errors
    /// When cgroup v2 is not mounted.
    pub fn of(name: &str) -> io::Result<Self> {
        Ok(Self { root: runtime::sys::cgroup2_mount()?.join(format!("strake-lab-{name}")) })
    }

    /// The lab's own root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cgroup of the supervisor.
    #[must_use]
    pub fn supervisor(&self) -> PathBuf {
        self.root.join(SUPERVISOR)
    }

    /// The root of a node: what `--cgroup-root` of its agent names.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    /// Cgroup of the node's prober.
    #[must_use]
    pub fn kubelet(&self, node: &str) -> PathBuf {
        self.node(node).join("kubelet")
    }

    /// A pod's cgroup; its containers are children of it.
    #[must_use]
    pub fn pod(&self, node: &str, uid: &str) -> PathBuf {
        self.node(node).join("kubepods").join(format!("pod{uid}"))
    }

    /// Kills every process of the lab and removes its empty cgroups.
    ///
    /// # Errors
    /// When a cgroup cannot be removed although its processes were killed.
    pub fn sweep(&self) -> io::Result<()> {
        remove_tree(&self.root)
    }
}

/// The cgroup of this process, as a directory.
pub(crate) fn current_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    // Lines with other numbers are of cgroup v1.
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(runtime::sys::cgroup2_mount()?.join(path))
}

/// Kills every process of a cgroup and below. Needs Linux 5.14.
///
/// # Errors
/// When the cgroup is there and does not take the order.
pub fn kill_cgroup(cgroup: &Path) -> io::Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        // A cgroup that is gone has no processes.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes a cgroup and its children with every process in them. A cgroup stays busy for a moment after its
/// last process was killed, and one that was about to join may have come in behind: both are tried for up to 5 s.
///
/// # Errors
/// When it stays busy or may not be removed.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        kill_cgroup(root)?;
        match try_remove_tree(root) {
            // `NotFound` alone may be of a child that went away meanwhile.
            Err(err) if err.kind() == io::ErrorKind::NotFound && !root.exists() => return Ok(()),
            Err(err)
                if matches!(err.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound)
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn try_remove_tree(root: &Path) -> io::Result<()> {
    // The kernel removes only a cgroup without children, so the deepest go first. Its files are the kernel's and go
    // with it.
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            try_remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_of_the_longest_name_fits() {
        let run = RunDir::of(&"n".repeat(MAX_NAME));
        let node = run.node(&"n".repeat(253));

        for socket in [run.socket(), node.join("zds/ztunnel.sock"), node.join("ztunnel/admin.sock")] {
            assert!(socket.as_os_str().len() < 108, "{}", socket.display());
        }
    }

    #[test]
    fn nodes_with_long_names_have_directories_of_their_own() {
        let run = RunDir::of("x");
        let long = "n".repeat(253);

        assert!(run.node("node-1").ends_with("nodes/node-1"));
        assert_ne!(run.node(&long), run.node(&format!("{}x", &long[1..])));
    }
}
