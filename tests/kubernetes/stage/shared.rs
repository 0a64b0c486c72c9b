//! A cluster that tests share: started by the first of them, and gone with the process.

use std::{env, fs, path::Path, sync::OnceLock};

use parking_lot::RwLock;
use testkit::prerequisites;

use super::{Cluster, Options};

/// Directory of what `make cluster-build` has made, below the repository.
const BUILT: &str = "target/kubernetes/stamp";

/// A shared cluster.
#[derive(Debug)]
pub(crate) struct Shared {
    purpose: &'static str,
    options: fn() -> Options,
    cluster: OnceLock<Result<Cluster, String>>,
    /// Held for reading by each test, for writing by one that disturbs the others.
    turn: RwLock<()>,
}

impl Shared {
    /// A cluster, once a test needs it.
    pub(crate) const fn new(purpose: &'static str, options: fn() -> Options) -> Self {
        Self { purpose, options, cluster: OnceLock::new(), turn: RwLock::new(()) }
    }

    /// Runs a test beside others, or skips it where no cluster can run.
    ///
    /// # Panics
    /// When the cluster does not start, or the test panics.
    pub(crate) fn run(&'static self, test: impl FnOnce(&Cluster)) {
        if prerequisites::met(missing()) {
            let cluster = self.cluster();
            let _turn = self.turn.read();
            test(cluster);
        }
    }

    /// Runs a test that would disturb others, while none of them runs.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub(crate) fn run_alone(&'static self, test: impl FnOnce(&Cluster)) {
        if prerequisites::met(missing()) {
            let cluster = self.cluster();
            let _turn = self.turn.write();
            let _whole = Restored(cluster);
            test(cluster);
        }
    }

    fn cluster(&'static self) -> &'static Cluster {
        let start = || Cluster::start(self.purpose, &(self.options)()).map_err(|err| format!("{err:#}"));
        self.cluster.get_or_init(start).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }
}

/// Undoes every disturbance when it is dropped: a test that fails in the middle takes no other one with it.
struct Restored<'a>(&'a Cluster);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        for command in [&["api", "resume"][..], &["api", "mend"], &["on", "node-1"], &["on", "node-2"]] {
            if let Err(err) = self.0.command(command) {
                eprintln!("{err:#}");
            }
        }
    }
}

/// Reason that no cluster can run here; `None` when one can.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root (namespaces, cgroups, mounts)".into());
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if let Err(err) = fs::metadata(repository.join(BUILT)) {
        return Some(format!("{BUILT}: {err}: run `make cluster-build`"));
    }
    None
}
