//! `strake get ...`: one file per thing that can be listed, one for tables.

pub(crate) mod pods;
pub(crate) mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::target::Target;

/// Kinds that can be listed.
#[derive(Debug, Subcommand)]
pub(crate) enum Get {
    /// Pods: in the mesh or not, with the checks in the kernel and the reason
    #[command(visible_alias = "pod", alias = "po")]
    Pods(pods::Pods),
}

impl Get {
    pub(crate) async fn run(&self, target: &Target) -> Result<ExitCode> {
        match self {
            Self::Pods(pods) => pods.run(target).await,
        }
    }
}
