//! Traces of a lab on this machine: files, cgroups, processes, mounts, network namespaces. Noted while it runs, looked
//! for when it is gone; removes nothing.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{Lab, Target};
use runtime::sys::Netns;

use super::story::{NODES, eventually};

/// Until the kernel has let go of processes that were killed.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Traces that must be gone after the lab.
#[derive(Debug)]
pub(crate) struct Traces {
    paths: Vec<PathBuf>,
    /// Cookies of the network namespaces of nodes and pods. Inodes are used again, cookies are not.
    networks: BTreeSet<u64>,
    /// Directories below which the lab mounts.
    mounts: Vec<PathBuf>,
}

impl Traces {
    /// Notes what a running lab has. A lab that is ending already has less.
    pub(crate) async fn of(lab: &Lab) -> Self {
        let (run, cgroups) = (lab.run_dir(), lab.cgroups());
        let mut places: Vec<_> = NODES.map(|node| Target::Node(node.to_owned())).into();
        let pods = lab.pods().await.unwrap_or_default();
        places.extend(pods.iter().map(|pod| {
            let pod = format!("{}/{}", pod.namespace, pod.name);
            Target::Pod { pod, container: None }
        }));
        let mut networks = BTreeSet::new();
        for place in places {
            // a pod that has just ended has none
            let Ok(netns) = lab.netns(place).await else { continue };
            networks.extend(Netns::from_fd(netns).and_then(|netns| netns.cookie()));
        }
        Self {
            paths: vec![run.root().into(), run.lock(), cgroups.root().into()],
            networks,
            mounts: vec![run.root().into(), cgroups.root().into()],
        }
    }

    /// Fails when anything of it is still there.
    pub(crate) async fn assert_gone(&self) -> Result<()> {
        eventually(GONE_WITHIN, async || {
            let left = self.left()?;
            ensure!(left.is_empty(), "left behind: {}", left.join(", "));
            Ok(())
        })
        .await
    }

    fn left(&self) -> io::Result<Vec<String>> {
        let found = self.paths.iter().filter(|path| path.exists());
        let mut left: Vec<String> = found.map(|path| path.display().to_string()).collect();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
        // the fifth field is where it is mounted
        let places = mountinfo.lines().filter_map(|mount| mount.split(' ').nth(4));
        let ours = |place: &&str| self.mounts.iter().any(|dir| Path::new(place).starts_with(dir));
        left.extend(places.filter(ours).map(|place| format!("mount {place}")));
        for entry in fs::read_dir("/proc")?.flatten() {
            let process = entry.path();
            if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) && self.is_of(&process) {
                let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ");
                left.push(format!("process {}: {command}", entry.file_name().display()));
            }
        }
        Ok(left)
    }

    /// Tells if a process belongs to the lab: by its namespaces, the namespaces that it holds, or its command line.
    fn is_of(&self, process: &Path) -> bool {
        let network = |path: PathBuf| {
            let cookie = Netns::open(&path).and_then(|netns| netns.cookie());
            cookie.is_ok_and(|cookie| self.networks.contains(&cookie))
        };
        let held = || fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        let is_network = |fd: &PathBuf| fs::read_link(fd).is_ok_and(|at| at.to_string_lossy().starts_with("net:["));
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        // The slash keeps a lab of a longer name, as `demo-2`, from being taken for this one.
        self.mounts.iter().any(|dir| command.contains(&format!("{}/", dir.display())))
            || network(process.join("ns/net"))
            || held().filter(is_network).any(network)
    }
}
