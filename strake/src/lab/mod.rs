//! `strake lab`: a cluster of namespaces on this machine. It only asks; the lab itself is the crate `lab`.

mod exec;
pub(crate) mod logs;
mod status;
mod terminal;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::target::Target;

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
    Down,
}

/// Runs one command of `strake lab`.
///
/// # Errors
/// What the user should read; exit code 1.
pub(crate) async fn run(command: LabCommand, target: &Target) -> Result<ExitCode> {
    match command {
        LabCommand::Up(command) => command.run(target).await,
        LabCommand::Exec(command) => command.run(target).await,
        LabCommand::Logs(command) => command.run(target).await,
        LabCommand::Status(command) => command.run(target).await,
        LabCommand::Down => {
            let name = &target.lab;
            if !::lab::exists(name)? {
                return Err(::lab::LabError::not_running(name).into());
            }
            ::lab::down(name).await?;
            println!("lab {name} is down");
            Ok(ExitCode::SUCCESS)
        }
    }
}
