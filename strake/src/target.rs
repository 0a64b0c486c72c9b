//! Which mesh a command speaks to: a lab on this machine, by name.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
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
        Lab::attach(&self.lab).await.context("`strake lab up DIR` starts one")
    }

    /// The directories of the user's manifests.
    pub(crate) fn manifests(&self) -> Result<Vec<PathBuf>> {
        lab::validate_name(&self.lab)?;
        let file = RunDir::of(&self.lab).root().join("options.json");
        let text = fs::read(&file)
            .with_context(|| format!("no lab named {:?} is running: `strake lab up DIR` starts one", self.lab))?;
        let options: Options =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
        Ok(options.manifests)
    }
}
