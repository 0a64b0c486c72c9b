//! `strake crds`: the custom resources of the mesh.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

/// Prints the CustomResourceDefinitions of the mesh, for a cluster that does not have them
#[derive(Debug, Args)]
pub(crate) struct Crds {}

/// Comment above the definitions.
const HEAD: &str = "\
# Custom resources of the mesh, with the names, versions and fields of Istio. A cluster that has them keeps its own.
# Written by `strake crds`; `cargo xtask docs` writes this file.
";

impl Crds {
    /// # Errors
    /// None in a program that passes its tests: see [`text`].
    pub(crate) fn run(self) -> Result<ExitCode> {
        print!("{}", text()?);
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the definitions as YAML, a document each.
///
/// # Errors
/// When a kind has no schema: a mistake of this program.
pub fn text() -> Result<String> {
    let mut text = HEAD.to_owned();
    for definition in kube_types::custom_resources()? {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}
