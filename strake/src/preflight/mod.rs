//! `strake check`: whether a mesh can be installed here, and whether one that is installed is in order. Each line that is not
//! ok has a remedy.

mod cluster;
mod lab;
mod running;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    check::CHECK_FAILED,
    mesh::{Choice, Mesh},
};

/// Oldest kernel with every hook of the mesh's programs.
const KERNEL: (u32, u32) = (5, 17);

/// Oldest Kubernetes.
const KUBERNETES: (u32, u32) = (1, 30);

/// Checks that a mesh can be installed, and one that is installed
#[derive(Debug, Args)]
#[command(
    after_help = "In a cluster: the API server's version and clock, your permissions, nodes, CNI plugins and components of Istio that would
be in the way; when the mesh is installed also its programs, what the agents and ztunnels of all nodes report, and certificates.
For a lab: this machine's kernel, and the programs of the lab.

Exit code: 0 when nothing is an error; 1 when the mesh cannot be asked; 2 for a wrong command line; 3 when something is an error.
A warning is no error"
)]
pub(crate) struct Check {
    /// Form of the output; default: text
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
}

/// Result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// It works, or may work, and should be looked at; or it could not be seen.
    Warning,
    /// The mesh cannot be installed, or does not do what it should.
    Error,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// Subject, as `kernel of node-1`.
    subject: String,
    outcome: Outcome,
    found: String,
    /// Empty when it is ok.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

#[derive(Debug, Serialize)]
struct Report {
    mesh: String,
    installed: bool,
    checks: Vec<Line>,
}

impl Line {
    fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), outcome: Outcome::Ok, found: found.into(), remedy: String::new() }
    }

    fn warning(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (subject, found, remedy) = (subject.into(), found.into(), remedy.into());
        Self { subject, outcome: Outcome::Warning, found, remedy }
    }

    fn error(subject: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Error, ..Self::warning(subject, found, remedy) }
    }
}

impl Check {
    pub(crate) async fn run(&self, choice: &Choice) -> Result<ExitCode> {
        let mesh = choice.connect().await?;
        let (checks, installed) = match &mesh {
            Mesh::Cluster(cluster) => {
                eprintln!("asking the API server ...");
                let mut checks = cluster::checks(cluster).await?;
                let installed = cluster::is_installed(cluster).await?;
                if installed {
                    eprintln!("asking agents and ztunnels ...");
                    checks.extend(cluster::programs(cluster).await?);
                    checks.extend(running::checks(&mesh).await?);
                }
                (checks, installed)
            }
            Mesh::Lab(lab) => {
                let mut checks = lab::checks();
                let has_mesh = lab.lab.run_dir().control().exists();
                if has_mesh {
                    checks.extend(running::checks(&mesh).await?);
                }
                (checks, has_mesh)
            }
        };
        let report = Report { mesh: mesh.name(), installed, checks };
        match self.output {
            Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&report)?),
            Some(Output::Yaml) => print!("{}", serde_saphyr::to_string(&report)?),
            None => print!("{}", text(&report)),
        }
        let failed = report.checks.iter().any(|line| line.outcome == Outcome::Error);
        Ok(if failed { ExitCode::from(CHECK_FAILED) } else { ExitCode::SUCCESS })
    }
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|line| line.subject.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Line { subject, outcome, found, remedy } in &report.checks {
        let word = match outcome {
            Outcome::Ok => "ok     ",
            Outcome::Warning => "warning",
            Outcome::Error => "ERROR  ",
        };
        text.push_str(&format!("{word}  {subject:<width$}  {found}\n"));
        if !remedy.is_empty() {
            text.push_str(&format!("{:11}remedy: {remedy}\n", ""));
        }
    }
    let count = |outcome| report.checks.iter().filter(|line| line.outcome == outcome).count();
    let (errors, warnings) = (count(Outcome::Error), count(Outcome::Warning));
    let what = match (report.installed, errors) {
        (true, 0) => "the mesh is in order",
        (true, _) => "the mesh is not in order",
        (false, 0) => "the mesh can be installed",
        (false, _) => "the mesh should not be installed like this",
    };
    text + &format!("\n{}: {what} ({errors} errors, {warnings} warnings)\n", report.mesh)
}

/// The first two numbers of a version, as `v1.33.1` or `6.1.0-13-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// A version of at least this.
fn at_least(subject: impl Into<String>, found: &str, oldest: (u32, u32), remedy: &str) -> Line {
    match version(found) {
        Some(version) if version >= oldest => Line::ok(subject, found),
        Some(_) => Line::error(subject, format!("{found}: expected {}.{} or newer", oldest.0, oldest.1), remedy),
        None => Line::warning(subject, format!("{found:?} is no version that is understood"), remedy),
    }
}

fn kernel(subject: impl Into<String>, found: &str) -> Line {
    at_least(subject, found, KERNEL, "upgrade the kernel of the node, or keep pods of the mesh off it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("v1.33.1+k3s1"), Some((1, 33)));
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.4-x"), Some((5, 4)));
        assert_eq!(version("new"), None);
        assert_eq!(kernel("k", "5.17.0").outcome, Outcome::Ok);
        assert_eq!(kernel("k", "5.4.0").outcome, Outcome::Error);
        assert_eq!(kernel("k", "10.0.0").outcome, Outcome::Ok);
        assert_eq!(kernel("k", "").outcome, Outcome::Warning);
    }

    #[test]
    fn what_is_not_ok_has_a_remedy_and_the_last_line_is_the_verdict() {
        let checks = vec![Line::ok("api server", "v1.33.1"), kernel("kernel of n1", "5.4.0")];
        let report = Report { mesh: "cluster kind".to_owned(), installed: false, checks };

        insta::assert_snapshot!(text(&report), @r"
    ok       api server    v1.33.1
    ERROR    kernel of n1  5.4.0: expected 5.17 or newer
               remedy: upgrade the kernel of the node, or keep pods of the mesh off it

    cluster kind: the mesh should not be installed like this (1 errors, 0 warnings)
    ");
    }
}
