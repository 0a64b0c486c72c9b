//! One cgroup per actor. The actors are threads of one process, so the cgroups are threaded ones
//! (cgroup-v2, "Threads"): the test process moves to a group of its own, under which threads may
//! live in different groups. With the last stage it moves back.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use parking_lot::Mutex;
use runtime::sys::cgroup2_mount;

use super::Actor;

/// Stages that exist, and where the process was before the first.
static USERS: Mutex<(u32, Option<PathBuf>)> = Mutex::new((0, None));

const PREFIX: &str = "strake-kernel-";

/// The cgroups of one stage.
pub(crate) struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    pub(crate) fn new(number: u32) -> Self {
        let domain = domain();
        let mut users = USERS.lock();
        if users.0 == 0 {
            sweep(domain.parent().unwrap());
            users.1 = Some(current());
            fs::create_dir(&domain).unwrap();
            fs::write(domain.join("cgroup.procs"), "0").unwrap();
        }
        users.0 += 1;
        let root = domain.join(number.to_string());
        for directory in [root.clone(), root.join("app"), root.join("proxy"), root.join("host"), root.join("kubelet")] {
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("cgroup.type"), "threaded").unwrap();
        }
        Self { root }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub(crate) fn of(&self, actor: Actor) -> PathBuf {
        self.root.join(match actor {
            Actor::App => "app",
            Actor::Proxy => "proxy",
            Actor::Host => "host",
            Actor::Prober => "kubelet",
        })
    }

    /// Moves the calling thread, and with it those that it starts.
    pub(crate) fn join(&self, actor: Actor) {
        fs::write(self.of(actor).join("cgroup.threads"), "0").unwrap();
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        remove(&self.root);
        let mut users = USERS.lock();
        users.0 -= 1;
        if users.0 == 0
            && let Some(home) = users.1.take()
        {
            let _ = fs::write(home.join("cgroup.procs"), "0");
            remove(&domain());
        }
    }
}

fn domain() -> PathBuf {
    cgroup2_mount().unwrap().join(format!("{PREFIX}{}", process::id()))
}

/// Cgroup of this process in the v2 hierarchy: the line that starts with `0::`.
fn current() -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    cgroup2_mount().unwrap().join(path)
}

/// Removes what test processes left that were killed.
fn sweep(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(str::to_owned);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
}

/// Directories only: the files in a cgroup go with it. A thread that is just ending may keep one busy.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let deadline = std::time::Instant::now() + super::DEADLINE;
    while fs::remove_dir(cgroup).is_err() && cgroup.exists() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
}
