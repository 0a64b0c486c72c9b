//! `strake version`: this program, and the programs of the mesh.

use std::{collections::BTreeSet, env::consts, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use crate::mesh::{Choice, Mesh};

/// Prints the versions of this program and of the programs of the mesh
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0; 1 when the mesh cannot be asked, or one of its programs does not answer.
Versions that differ are named and no error: an upgrade replaces one program after the other.
With --client nothing is asked")]
pub(crate) struct Version {
    /// Print the version of this program only
    #[arg(long)]
    client: bool,
}

/// A program of the mesh and its version, or why that is not known.
type Answer = (String, Result<String>);

impl Version {
    pub(crate) async fn run(&self, choice: &Choice) -> Result<ExitCode> {
        println!("{}", ours());
        if self.client {
            return Ok(ExitCode::SUCCESS);
        }
        let mesh = choice.connect().await?;
        println!("{}:", mesh.name());
        let answers = programs(&mesh).await?;
        print!("{}", text(&answers));
        let silent = answers.iter().any(|(_, version)| version.is_err());
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

/// Everything that should answer.
async fn programs(mesh: &Mesh) -> Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = mesh
        .controls()
        .await?
        .into_iter()
        .map(|(name, page)| (name, page.and_then(|page| of_control(&page))))
        .collect();
    for (node, report) in mesh.reports().await? {
        answers.push((format!("strake-agent of {node}"), report.map(|report| named(report.version))));
    }
    for (node, dump) in mesh.dumps().await? {
        answers.push((format!("ztunnel of {node}"), dump.map(|dump| named(dump.version.version))));
    }
    Ok(answers)
}

/// Version on the page that istioctl asks for as well.
fn of_control(page: &[u8]) -> Result<String> {
    let page: Value = serde_json::from_slice(page).context("unexpected page")?;
    Ok(named(page["clientVersion"]["version"].as_str().unwrap_or_default().to_owned()))
}

fn named(version: String) -> String {
    if version.is_empty() { "unknown".to_owned() } else { version }
}

fn text(answers: &[Answer]) -> String {
    let mut text = String::new();
    for (name, version) in answers {
        match version {
            Ok(version) => text.push_str(&format!("  {name}: {version}\n")),
            Err(error) => text.push_str(&format!("  {name}: {error:#}\n")),
        }
    }
    let versions: BTreeSet<_> = answers.iter().filter_map(|(_, version)| version.as_deref().ok()).collect();
    if versions.len() > 1 {
        text.push_str("versions differ: wait for the end of the upgrade, or run `strake install` again\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_differ_and_programs_that_are_silent_are_named() {
        let answer = |name: &str, version: &str| (name.to_owned(), Ok(version.to_owned()));
        let same = [answer("strake-control", "1.0.0"), answer("ztunnel of n1", "1.0.0")];
        let silent = ("ztunnel of n2".to_owned(), Err(anyhow::anyhow!("no answer within 5s")));

        assert_eq!(text(&same), "  strake-control: 1.0.0\n  ztunnel of n1: 1.0.0\n");
        let [control, _] = same;
        let text = text(&[control, answer("ztunnel of n1", "0.9.0"), silent]);
        assert!(text.contains("  ztunnel of n2: no answer within 5s\n"), "{text}");
        assert!(text.contains("versions differ"), "{text}");
    }

    #[test]
    fn a_control_plane_tells_its_version_as_istioctl_reads_it() {
        assert_eq!(of_control(br#"{"clientVersion": {"version": "0.1.0"}}"#).unwrap(), "0.1.0");
        assert_eq!(of_control(b"{}").unwrap(), "unknown");
        assert!(of_control(b"<html>").is_err());
    }
}
