//! The command line of Strake: what it accepts, and one module per command. It holds no behaviour of the mesh.

mod admin;
mod check;
mod cluster;
mod completion;
pub mod crds;
pub mod demo;
mod get;
mod install;
mod intent;
pub mod lab;
mod label;
mod peers;
mod status;
mod target;
mod version;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use target::Target;

/// Runs labs of Strake and explains what the mesh does.
#[derive(Debug, Parser)]
#[command(
    name = "strake",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Name of the lab [env: STRAKE_LAB] [default: default; of the demo: demo]
    // Not clap's own env and default: the demo has another default, and no variable.
    #[arg(long, alias = "name", global = true, value_name = "NAME")]
    lab: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs nodes and pods of a directory of manifests on this machine
    #[command(subcommand)]
    Lab(Lab),
    /// Shows what the mesh and the kernel know of pods
    #[command(subcommand)]
    Get(get::Get),
    /// Sets or removes labels of a namespace or pod
    Label(label::Label),
    Install(install::Install),
    Uninstall(install::Uninstall),
    Crds(crds::Crds),
    Status(status::Status),
    /// Prints client and server versions
    Version(version::Version),
    /// Prints a completion script for a shell
    Completion(completion::Completion),
}

#[derive(Debug, Subcommand)]
enum Lab {
    #[command(flatten)]
    Command(lab::LabCommand),
    /// Tells the mesh's story on two nodes of this machine, and proves each step
    Demo(demo::Demo),
}

/// Runs one command.
///
/// # Errors
/// What the user should read; exit code 1.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { lab, command } = cli;
    let target = Target::new(lab.clone());
    match command {
        Command::Completion(command) => Ok(command.run()),
        Command::Crds(command) => command.run(),
        Command::Get(command) => block_on(command.run(&target)),
        Command::Label(command) => block_on(command.run(&target)),
        Command::Lab(Lab::Command(command)) => block_on(lab::run(command, &target)),
        Command::Lab(Lab::Demo(demo)) => block_on(demo.run(lab.as_deref())),
        Command::Install(command) => block_on(command.run()),
        Command::Status(command) => block_on(command.run()),
        Command::Uninstall(command) => block_on(command.run()),
        Command::Version(command) => block_on(command.run(&target)),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    #[test]
    fn the_lab_is_named_before_or_behind_the_command_and_by_its_old_flag() {
        for line in ["strake --lab a lab down", "strake lab down --lab a", "strake get pods --name a"] {
            assert_eq!(Cli::parse_from(line.split(' ')).lab.as_deref(), Some("a"), "{line}");
        }
    }

    /// The help of a command and of everything below it.
    fn help(command: &mut Command) -> String {
        let name = command.get_bin_name().unwrap_or("strake").to_owned();
        let mut text = format!("$ {name} --help\n{}\n", command.render_long_help());
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
            text.push_str(&help(below));
        }
        text
    }

    /// Hides values of the environment, which are not part of the help.
    fn without_environment(command: Command) -> Command {
        command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(without_environment)
    }

    #[test]
    fn the_help_texts_are_reviewed_where_they_change() {
        let mut command = without_environment(Cli::command().term_width(120));

        command.build();
        insta::assert_snapshot!(help(&mut command));
    }
}
