//! `strake lab`: a cluster of namespaces on this machine. It only asks; the lab itself is the crate `lab`.

mod exec;
mod logs;
mod status;
mod terminal;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Runs nodes and pods of a directory of manifests on this machine
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Starts a lab, and returns when every pod is ready
    Up(up::Up),
    /// Runs a command in a pod
    Exec(exec::Exec),
    /// Prints what containers have printed
    Logs(logs::Logs),
    /// Shows nodes, pods and Services of a lab
    Status(status::Show),
    /// Stops a lab and removes everything that belongs to it
    Down(Down),
}

/// Which lab.
#[derive(Debug, Clone, Args)]
pub struct Name {
    /// Name of the lab
    #[arg(long, alias = "lab", value_name = "NAME", default_value = "default", env = "STRAKE_LAB")]
    name: String,
}

/// Ends a lab.
#[derive(Debug, Args)]
pub struct Down {
    #[command(flatten)]
    lab: Name,
}

/// Runs one command of `strake lab`.
///
/// # Errors
/// What the user should read; exit code 1.
pub async fn run(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up(command) => command.run().await,
        LabCommand::Exec(command) => command.run().await,
        LabCommand::Logs(command) => command.run().await,
        LabCommand::Status(command) => command.run().await,
        LabCommand::Down(Down { lab }) => {
            if !::lab::exists(&lab.name)? {
                return Err(::lab::LabError::not_running(&lab.name).into());
            }
            ::lab::down(&lab.name).await?;
            println!("lab {} is down", lab.name);
            Ok(ExitCode::SUCCESS)
        }
    }
}
