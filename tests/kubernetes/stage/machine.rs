//! Traces of a cluster on the machine.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};

/// Everything outside of a cluster's own namespaces that carries its name: processes, mounts, cgroups, files.
#[derive(Debug)]
pub(crate) struct Leftovers {
    name: String,
}

impl Leftovers {
    pub(crate) fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Fails with what there is.
    ///
    /// # Errors
    /// When there is anything.
    pub(crate) fn none(&self) -> Result<()> {
        let mut found = self.processes();
        found.extend(self.mounts());
        found.extend(self.paths().into_iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
        ensure!(found.is_empty(), "left: {}", found.join(", "));
        Ok(())
    }

    /// Processes whose command or cgroup names it. Not those that have ended: process 1 of the machine reaps them.
    pub(crate) fn processes(&self) -> Vec<String> {
        let numbers = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
        let numbers = numbers.filter(|path| path.join("cmdline").exists());
        numbers
            .filter_map(|path| {
                let read = |file| fs::read_to_string(path.join(file)).unwrap_or_default().replace('\0', " ");
                let (command, cgroup) = (read("cmdline"), read("cgroup"));
                let is_named = command.contains(&format!("{} ", self.name)) || cgroup.contains(&self.cgroup_name());
                (is_named && !read("status").contains("State:\tZ"))
                    .then(|| format!("{}: {}", path.display(), command.trim()))
            })
            .collect()
    }

    /// Mounts of the machine. Network namespaces need none: they go with the cluster's last process.
    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        mounts.lines().filter(|line| line.contains(&self.name)).map(ToOwned::to_owned).collect()
    }

    /// Files and cgroups, the log directory excepted, which belongs to the test.
    fn paths(&self) -> Vec<PathBuf> {
        let run = PathBuf::from("/run/strake/cluster");
        let mut paths = vec![run.join(&self.name), run.join(format!("{}.lock", self.name))];
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let cgroups = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
        paths.extend(cgroups.filter_map(|line| Some(PathBuf::from(line.split(' ').nth(1)?).join(self.cgroup_name()))));
        paths
    }

    fn cgroup_name(&self) -> String {
        format!("strake-cluster-{}", self.name)
    }
}
