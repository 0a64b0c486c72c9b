//! Writes the generated pages of `docs/reference`. What is on them comes from the test program `reference`, which also fails
//! when a page is out of date.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

/// Variable that makes the test program write pages instead of comparing them.
const WRITE: &str = "STRAKE_WRITE_REFERENCE";

/// Runs the test program `reference` so that it writes its pages.
///
/// # Errors
/// When cargo cannot be started, or a page cannot be written.
pub(crate) fn write(workspace: &Path) -> Result<()> {
    // The selection of packages of every other build: another one would unify features differently and build anew.
    let status = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--quiet", "--test", "reference"])
        .current_dir(workspace)
        .env(WRITE, "1")
        .status()
        .context("failed to start cargo")?;
    if !status.success() {
        bail!("failed to write docs/reference: cargo test: {status}");
    }
    Ok(())
}
