//! Compiles `ebpf/programs` for the BPF target. The loader's build script embeds the result.

mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, bail};

use toolchain::Toolchain;

const OBJECTS: [&str; 2] = ["mesh", "sk_lookup"];

/// Sources of the objects.
const SOURCES: [&str; 5] = [
    "ebpf/common/src",
    "ebpf/common/Cargo.toml",
    "ebpf/programs/src",
    "ebpf/programs/Cargo.toml",
    "ebpf/programs/Cargo.lock",
];

/// Variables of the outer cargo or rustup that the inner one must not see.
const FOREIGN: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build even when the objects are newer than their sources.
    #[arg(long)]
    force: bool,
}

/// Leaves `target/ebpf/{mesh,sk_lookup}` and a stamp that says when they were up to date.
pub(crate) fn build(workspace: &Path, options: &Options) -> anyhow::Result<()> {
    let out = workspace.join("target/ebpf");
    if !options.force && is_fresh(workspace, &out) {
        println!("ebpf: up to date");
        return Ok(());
    }
    fs::create_dir_all(&out)?;
    let toolchain = Toolchain::find(&out)?;
    println!("ebpf: building with {}", toolchain.describe());
    let status = compile(workspace, &out, &toolchain)
        .status()
        .with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    if !status.success() {
        bail!("the kernel programs do not compile");
    }
    let built = out.join("build").join(toolchain::target()).join("release");
    for object in OBJECTS {
        replace_if_changed(&built.join(object), &out.join(object))?;
    }
    // Last, and beside the objects: an object that did not change keeps its time, so its own age says nothing about the
    // build.
    fs::write(out.join("stamp"), "")?;
    Ok(())
}

fn compile(workspace: &Path, out: &Path, toolchain: &Toolchain) -> Command {
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(workspace.join("ebpf/programs"))
        .args(["build", "--release", "--locked", "--bins", "-Z", "build-std=core", "--target", toolchain::target()])
        .arg("--target-dir")
        .arg(out.join("build"));
    // The inner cargo uses another compiler for another target. What the outer one has set for its own build would
    // break it.
    for name in FOREIGN {
        cargo.env_remove(name);
    }
    let flags =
        // The kernel wants BTF for some maps, and bpf-linker makes it from debug information.
        [format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH), "-Cdebuginfo=2".into(), "-Clink-arg=--btf".into()];
    cargo
        .env("RUSTC", &toolchain.rustc)
        // `-Z build-std` with a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("LD_LIBRARY_PATH", &toolchain.llvm)
        .env("PATH", &toolchain.path);
    cargo
}

/// Returns true if every source is older than the last successful build.
fn is_fresh(workspace: &Path, out: &Path) -> bool {
    let Some(built) = modified(&out.join("stamp")) else { return false };
    OBJECTS.iter().all(|object| out.join(object).exists())
        && SOURCES.iter().all(|source| newest(&workspace.join(source)).is_some_and(|changed| changed < built))
}

/// The latest change of a file, or of a directory and anything in it; `None`: unknown.
fn newest(path: &Path) -> Option<SystemTime> {
    let mut latest = modified(path)?;
    if path.is_dir() {
        for entry in fs::read_dir(path).ok()? {
            // A directory's own time as well: it is all that a removed file changes.
            latest = latest.max(newest(&entry.ok()?.path())?);
        }
    }
    Some(latest)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Leaves an equal file alone, so that nothing that embeds it is built again.
fn replace_if_changed(from: &PathBuf, to: &PathBuf) -> anyhow::Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    // cargo compares times of files, not contents.
    if fs::read(to).ok().as_ref() != Some(&bytes) {
        fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
