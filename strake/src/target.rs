//! Which mesh a command speaks to: a lab on this machine, by name.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use lab::{Lab, Options, paths::RunDir};

/// The option every command shares.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// Name of the lab
    #[arg(long, value_name = "NAME", default_value = "default", env = "STRAKE_LAB")]
    pub(crate) lab: String,
}

impl Target {
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
