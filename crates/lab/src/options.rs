//! Options of a lab. The lab is made from them in `supervisor`.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::LabError,
    paths::{MAX_NAME, RunDir},
};

/// Environment variable that names the directory of Strake's programs.
pub const BIN_DIR_VARIABLE: &str = "STRAKE_BIN_DIR";

/// File with the options of a lab, which its supervisor reads.
const OPTIONS_FILE: &str = "options.json";

/// Nodes of a lab whose manifests name none.
const DEFAULT_NODES: usize = 2;

/// Most nodes of a lab: the third byte of a pod's address is the node's number.
const MAX_NODES: usize = 200;

/// Programs of the mesh.
pub const SYSTEM_PROGRAMS: [&str; 3] = ["strake-control", "strake-agent", "ztunnel"];

/// Everything `Lab::start` needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Name of the lab: labels of a DNS name, at most 32 bytes. Labs of different names live side by side.
    pub name: String,
    /// Directories of manifests, watched while the lab runs. Absolute after `validate`.
    pub manifests: Vec<PathBuf>,
    /// Manifests that the lab brings along, by file name: they are in `RunDir::manifests`, watched like the directories,
    /// and go with the lab however it ends.
    #[serde(default)]
    pub own_manifests: BTreeMap<String, String>,
    /// Nodes to make when the manifests hold no Node (default 2).
    pub nodes: usize,
    /// Directory of `strake-control`, `strake-agent` and `ztunnel`.
    pub bin_dir: PathBuf,
    /// Program that knows `lab process ...`: `strake`, which plays supervisor, prober and container start.
    pub program: PathBuf,
    /// True if control plane, agents and node proxies are started.
    pub mesh: bool,
    /// Added to the environment of every system pod's container.
    pub system_env: BTreeMap<String, String>,
    /// Added to the environment of one program of the mesh, by its name; wins over everything else.
    #[serde(default)]
    pub program_env: BTreeMap<String, BTreeMap<String, String>>,
    /// Time for which a pod that left the mesh keeps its old connections (the agent's `--unenrol-grace`).
    pub unenrol_grace: Duration,
}

impl Options {
    /// A lab of one directory with the defaults: two nodes, with mesh, programs from
    /// `STRAKE_BIN_DIR` or beside the running program.
    #[must_use]
    pub fn new(name: impl Into<String>, manifests: impl Into<PathBuf>) -> Self {
        Self { manifests: vec![manifests.into()], ..Self::of(name, BTreeMap::new()) }
    }

    /// As [`Self::new`], of manifests that the lab brings along.
    #[must_use]
    pub fn of(name: impl Into<String>, own_manifests: BTreeMap<String, String>) -> Self {
        let bin_dir = bin_dir();
        Self {
            name: name.into(),
            manifests: Vec::new(),
            own_manifests,
            nodes: DEFAULT_NODES,
            program: bin_dir.join("strake"),
            bin_dir,
            mesh: true,
            system_env: BTreeMap::new(),
            program_env: BTreeMap::new(),
            unenrol_grace: Duration::from_secs(2),
        }
    }

    /// The same options with absolute paths.
    ///
    /// # Errors
    /// When the name is invalid, the number of nodes is out of range, a path does not exist, or the mesh's programs
    /// are not where they should be.
    pub fn validate(mut self) -> Result<Self, LabError> {
        validate_name(&self.name)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(LabError::Invalid(format!("{} nodes: a lab has 1 to {MAX_NODES}", self.nodes)));
        }
        for path in [&mut self.bin_dir, &mut self.program] {
            *path = path.canonicalize().map_err(|err| unusable(path, err))?;
        }
        for path in &mut self.manifests {
            // Links stay: one that is switched to another directory later on is followed anew.
            let absolute = std::path::absolute(&*path).and_then(|absolute| absolute.metadata().map(|_| absolute));
            *path = absolute.map_err(|err| unusable(path, err))?;
        }
        let missing: Vec<_> = SYSTEM_PROGRAMS.into_iter().filter(|name| !self.bin_dir.join(name).is_file()).collect();
        // All of this would fail later as well, but in the log of a pod or of the supervisor. Here the user is told at
        // once, and what to do.
        if self.mesh && !missing.is_empty() {
            let reason = format!(
                "{} not there: `make build` makes them, --bin-dir or {BIN_DIR_VARIABLE} says where they are, --no-mesh does \
                 without",
                missing.join(", ")
            );
            return Err(unusable(&self.bin_dir, reason));
        }
        if find_program("nft", env::var_os("PATH").as_deref()).is_none() {
            let reason = "nft is not in PATH: Services are made of nftables rules; install the package nftables";
            return Err(LabError::Invalid(reason.to_owned()));
        }
        Ok(self)
    }
}

/// Path of a program in one of the directories of `PATH`.
fn find_program(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?).map(|directory| directory.join(name)).find(|file| file.is_file())
}

impl Options {
    /// The options with which the lab `name` runs.
    ///
    /// # Errors
    /// [`LabError::NotRunning`]; when the name cannot be one, or the lab's file cannot be read.
    pub fn of_running(name: &str) -> Result<Self, LabError> {
        validate_name(name)?;
        let path = RunDir::of(name).root().join(OPTIONS_FILE);
        let text = match fs::read(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Err(LabError::not_running(name)),
            read => read.map_err(|err| LabError::of(err, &path))?,
        };
        serde_json::from_slice(&text).map_err(|err| unusable(&path, err))
    }

    /// Reads the options that the starter wrote.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    /// Writes them where the lab's supervisor and others look for them, and returns where that is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, run: &RunDir) -> io::Result<PathBuf> {
        let file = run.root().join(OPTIONS_FILE);
        fs::write(&file, serde_json::to_vec_pretty(self).map_err(io::Error::from)?)?;
        Ok(file)
    }

    /// Writes the lab's own manifests below its directory, which is there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_own_manifests(&mut self, run: &RunDir) -> io::Result<()> {
        if self.own_manifests.is_empty() {
            return Ok(());
        }
        fs::create_dir(run.manifests())?;
        for (name, text) in &self.own_manifests {
            let path = run.manifests().join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, text)?;
        }
        self.manifests.push(run.manifests());
        Ok(())
    }
}

fn unusable(path: &Path, reason: impl ToString) -> LabError {
    LabError::Path { path: path.to_owned(), reason: reason.to_string() }
}

/// Checks that a name can be part of paths and of a cgroup's name.
///
/// # Errors
/// When it cannot.
pub fn validate_name(name: &str) -> Result<(), LabError> {
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if good {
        return Ok(());
    }
    Err(LabError::Invalid(format!("invalid lab name {name:?}: expected up to {MAX_NAME} of a-z, 0-9 and -")))
}

/// Directory of the programs: `STRAKE_BIN_DIR`, else the directory of the running program.
fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os(BIN_DIR_VARIABLE) {
        return dir.into();
    }
    env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_directory_is_refused() {
        for name in ["", "../x", "a/b", "Upper", "a_b", &"n".repeat(33)] {
            assert!(validate_name(name).is_err(), "{name}");
        }
        assert!(validate_name("e2e-4").is_ok());
    }

    #[test]
    fn a_lab_that_does_not_run_has_no_options() {
        assert!(matches!(Options::of_running("no-such-lab"), Err(LabError::NotRunning { .. })));
        assert!(matches!(Options::of_running("../x"), Err(LabError::Invalid(_))));
    }

    #[test]
    fn a_program_is_looked_for_in_every_directory_of_the_path() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(full.path().join("nft"), "").unwrap();
        let path = env::join_paths([empty.path(), full.path()]).unwrap();

        assert_eq!(find_program("nft", Some(&path)), Some(full.path().join("nft")));
        assert_eq!(find_program("nft", Some(empty.path().as_os_str())), None);
        assert_eq!(find_program("nft", None), None);
    }

    #[test]
    fn what_cannot_work_is_said_before_anything_is_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "").unwrap();
        let options = |manifests: &Path| {
            let mut options = Options::new("x", manifests);
            (options.bin_dir, options.program) = (dir.path().to_owned(), file.clone());
            options
        };

        let of = |options: Options| options.validate().unwrap_err().to_string();

        assert!(of(options(&dir.path().join("none"))).contains("none: No such file or directory"));
        let programs = of(options(dir.path()));
        assert!(programs.contains("strake-control, strake-agent, ztunnel not there: `make build`"), "{programs}");
        assert!(Options { mesh: false, ..options(dir.path()) }.validate().is_ok());
    }
}
