//! The command line of Strake: what it accepts, and one module per command. It holds no behaviour of the mesh.

mod admin;
mod analyze;
mod check;
mod cluster;
mod completion;
pub mod crds;
pub mod demo;
mod describe;
mod explain;
mod get;
mod install;
mod intent;
pub mod lab;
mod label;
mod logs;
mod mesh;
mod peers;
mod preflight;
mod progress;
mod status;
mod target;
mod times;
mod version;
mod wait;
mod waypoint;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use cluster::Cluster;
use mesh::Choice;

/// Name of the program as a plugin of kubectl: `kubectl strake ...` runs it.
const PLUGIN: &str = "kubectl-strake";

/// Installs the mesh, explains what it does, and runs labs of it.
#[derive(Debug, Parser)]
#[command(
    name = "strake",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Commands that ask a mesh take the lab of --lab or the cluster of --kubeconfig and --context; without these a lab that runs, and
without one the cluster of the kubeconfig. As kubectl strake (a link kubectl-strake to this program) they take kubectl's cluster.

Exit codes: 0 success; 1 failure; 2 wrong command line; 3 a check (--check, strake check) has found something;
lab exec ends with the code of its command, lab up with 130 and 143 after SIGINT and SIGTERM"
)]
pub struct Cli {
    /// Name of the lab [env: STRAKE_LAB] [default: default; of the demo: demo]
    // Not clap's own env and default: the demo has another default, and no variable.
    #[arg(long, global = true, value_name = "NAME")]
    lab: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(install::Install),
    Uninstall(install::Uninstall),
    Crds(crds::Crds),
    Check(preflight::Check),
    Status(status::Status),
    /// Lists what the mesh knows: pods, services, workloads, policies, routes, certificates, connections
    #[command(subcommand)]
    Get(get::Get),
    #[command(subcommand)]
    Describe(describe::Describe),
    Explain(explain::Explain),
    Analyze(analyze::Analyze),
    Logs(logs::Logs),
    /// Makes, lists and removes waypoints
    #[command(subcommand)]
    Waypoint(waypoint::Waypoint),
    /// Runs nodes and pods of a directory of manifests on this machine
    #[command(subcommand)]
    Lab(Lab),
    /// Sets or removes labels of a namespace or pod
    Label(label::Label),
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

/// Runs one command. `program` is the name that the program was called by.
///
/// # Errors
/// What the user should read; exit code 1.
pub fn run(cli: Cli, program: Option<&str>) -> Result<ExitCode> {
    let Cli { lab, cluster, command } = cli;
    let choice = Choice { lab: lab.clone(), cluster, is_plugin: program == Some(PLUGIN) };
    block_on(async {
        match command {
            Command::Completion(command) => Ok(command.run()),
            Command::Crds(command) => command.run(),
            Command::Get(command) => command.run(&choice.connect().await?).await,
            Command::Describe(command) => command.run(&choice.connect().await?).await,
            Command::Explain(command) => command.run(&choice.connect().await?).await,
            Command::Analyze(command) => command.run(&choice).await,
            Command::Check(command) => command.run(&choice).await,
            Command::Logs(command) => command.run(&choice).await,
            Command::Waypoint(command) => command.run(&choice).await,
            Command::Label(command) => command.run(&choice).await,
            Command::Lab(Lab::Command(command)) => lab::run(command, &choice.only_lab()?).await,
            Command::Lab(Lab::Demo(demo)) => demo.run(lab.as_deref()).await,
            Command::Install(command) => command.run(&choice.only_cluster()?).await,
            Command::Status(command) => command.run(&choice.connect().await?).await,
            Command::Uninstall(command) => command.run(&choice.only_cluster()?).await,
            Command::Version(command) => command.run(&choice).await,
        }
    })
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;

    #[test]
    fn the_lab_is_named_before_or_behind_the_command() {
        for line in ["strake --lab a lab down", "strake lab down --lab a", "strake get pods --lab a"] {
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
