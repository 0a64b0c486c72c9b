//! The lab of a command: its name, its handle, and where its manifests are. Commands that are for clusters, too, ask a
//! `mesh::Mesh`.

use std::{env, path::PathBuf};

use anyhow::Result;
use lab::{Lab, Options, paths::RunDir};

/// Variable with the name of the lab for commands without `--lab`.
pub(crate) const VARIABLE: &str = "STRAKE_LAB";

/// Name of the lab without flag and variable.
pub(crate) const DEFAULT: &str = "default";

/// The lab of a command.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Name of the lab.
    pub(crate) lab: String,
}

impl Target {
    /// The lab that flag or variable name.
    pub(crate) fn new(flag: Option<String>) -> Self {
        let variable = || env::var(VARIABLE).ok().filter(|name| !name.is_empty());
        Self { lab: flag.or_else(variable).unwrap_or_else(|| DEFAULT.to_owned()) }
    }

    /// A handle of the running lab.
    pub(crate) async fn attach(&self) -> Result<Lab> {
        Ok(Lab::attach(&self.lab).await?)
    }

    /// The lab of a handle.
    pub(crate) fn of(lab: &Lab) -> Self {
        Self { lab: lab.name().to_owned() }
    }

    /// The directory of derived objects and of what programs write.
    pub(crate) fn state(&self) -> PathBuf {
        RunDir::of(&self.lab).state()
    }

    /// The directories of the user's manifests.
    pub(crate) fn manifests(&self) -> Result<Vec<PathBuf>> {
        Ok(Options::of_running(&self.lab)?.manifests)
    }
}
