//! `strake version`: this program, and which programs of the lab answer.

use std::{env::consts, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use contract::admin::READY_PATH;
use lab::Lab;

use crate::{admin, target::Target};

/// Prints the version of this program and whether the programs of the lab answer.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0; 1 when the lab does not run or cannot be asked, or one of its programs does not answer.
With --client nothing is asked"
)]
pub(crate) struct Version {
    /// Print the version of this program only
    #[arg(long)]
    client: bool,
}

impl Version {
    pub(crate) async fn run(&self, target: &Target) -> Result<ExitCode> {
        println!("{}", ours());
        if self.client {
            return Ok(ExitCode::SUCCESS);
        }
        // Without a lab there is nothing to ask; a lab that cannot be asked is another matter.
        let lab = target.attach().await?;
        println!("lab {}:", lab.name());
        let mut silent = false;
        for (name, socket, path) in programs(&lab).await? {
            match admin::get(&socket, path).await {
                Ok(_) => println!("  {name}: answers"),
                Err(err) => {
                    println!("  {name}: {err:#}");
                    silent = true;
                }
            }
        }
        Ok(if silent { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Commit that was built, as `git describe` says it; `make` tells it to the compiler.
const COMMIT: Option<&str> = option_env!("STRAKE_COMMIT");

fn ours() -> String {
    let commit = COMMIT.filter(|commit| !commit.is_empty()).unwrap_or("unknown");
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("strake {} (commit {commit}, {} {}, {profile} build)", env!("CARGO_PKG_VERSION"), consts::OS, consts::ARCH)
}

/// Name, socket and page of everything that should answer.
async fn programs(lab: &Lab) -> Result<Vec<(String, PathBuf, &'static str)>> {
    let mut found = vec![("strake-control".to_owned(), admin::control(lab), READY_PATH)];
    for node in lab.nodes().await? {
        found.push((format!("strake-agent of {}", node.name), admin::agent(lab, &node.name), READY_PATH));
        found.push((format!("ztunnel of {}", node.name), admin::ztunnel(lab, &node.name), admin::CONFIG_DUMP_PATH));
    }
    Ok(found)
}
