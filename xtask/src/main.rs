//! Builds the kernel programs, writes reference pages, checks the layer table, repeats tests. Tasks that need nothing but cargo and Rust.

mod docs;
mod ebpf;
mod layers;
mod repeat;

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
    /// Write the generated pages of docs/reference.
    Docs,
    /// Compare the dependencies between our crates with xtask/layers.toml.
    Layers,
    /// Run the kernel and netns suites many times beside other labs, and count failures (root).
    TestRepeat(repeat::Options),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Ebpf(options) => ebpf::build(&workspace(), &options),
        Task::Docs => docs::write(&workspace()),
        Task::Layers => layers::check(&workspace()),
        Task::TestRepeat(options) => repeat::run(&workspace(), &options),
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
