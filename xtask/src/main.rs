//! Builds the kernel programs, writes reference pages, checks the workspace, repeats tests. Tasks that need nothing but
//! cargo and Rust.

mod deny;
mod doc_links;
mod docs;
mod ebpf;
mod layers;
mod manifests;
mod repeat;
mod source;
mod words;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

/// Tasks of this workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Compile the kernel programs into target/ebpf; quick when nothing changed.
    Ebpf(ebpf::Options),
    /// Check licences, versions and origins of third-party packages against deny.toml.
    Deny,
    /// Write the generated pages of docs/reference, and the custom resources.
    Docs,
    /// Check dependencies against xtask/layers.toml, and that each is used.
    Layers,
    /// Check that links and paths in documents lead to files that exist.
    Links,
    /// Write daemonset/manifests from daemonset/chart, with the Helm of `make cluster-build`.
    Manifests,
    /// Run the kernel and netns suites many times beside other labs, and count failures (root).
    TestRepeat(repeat::Options),
    /// Check the wording of messages, help, documents and doc comments against xtask/words.toml.
    Words,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        // The directory comes from the compiled program, so that a task works from any directory.
        Task::Ebpf(options) => ebpf::build(&workspace(), &options),
        Task::Deny => deny::check(&workspace()),
        Task::Docs => docs::write(&workspace()),
        Task::Links => doc_links::check(&workspace()),
        Task::Layers => layers::check(&workspace()),
        Task::Manifests => manifests::write(&workspace()),
        Task::TestRepeat(options) => repeat::run(&workspace(), &options),
        Task::Words => words::check(&workspace()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// The directory of the workspace's `Cargo.toml`.
fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
