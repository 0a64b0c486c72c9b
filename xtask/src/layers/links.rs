//! Packages that a program must never link, however many others are between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, bail};

/// Faults of all programs, one text each. Asks `cargo tree`, because `cargo metadata` shows the features of all members
/// together: another program's server would count for this one.
pub(super) fn faults(workspace: &Path, never: &BTreeMap<String, BTreeSet<String>>) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (program, forbidden) in never {
        let linked = linked(workspace, program)?;
        let found = forbidden.iter().filter(|name| linked.contains(*name));
        faults.extend(
            found.map(|name| {
                format!("{program} must not link {name}: see `cargo tree -p {program} -e normal -i {name}`")
            }),
        );
    }
    Ok(faults)
}

/// Names of the packages that a program links with its default features.
fn linked(workspace: &Path, program: &str) -> anyhow::Result<BTreeSet<String>> {
    // The cargo that runs this task, which need not be the first in PATH.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", program];
    let output =
        Command::new(cargo).args(arguments).current_dir(workspace).output().context("failed to run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}
