//! Embeds the kernel programs that `cargo xtask ebpf` compiled. It compiles none itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

const OBJECTS: [&str; 2] = ["mesh", "sk_lookup"];
const OVERRIDE: &str = "STRAKE_EBPF_OBJ_DIR";

fn main() {
    // Asked when it runs: a target directory may be shared by several checkouts.
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../..");
    let given = env::var_os(OVERRIDE).map(PathBuf::from);
    let directory = given.clone().unwrap_or_else(|| root.join("target/ebpf"));
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    println!("cargo::rerun-if-env-changed={OVERRIDE}");

    for object in OBJECTS {
        let from = directory.join(object);
        println!("cargo::rerun-if-changed={}", from.display());
        if let Err(err) = fs::copy(&from, out.join(object)) {
            println!(
                "cargo::error=the kernel programs are not built ({}: {err}): run `cargo xtask ebpf` first, \
                 or point {OVERRIDE} at a directory with {}",
                from.display(),
                OBJECTS.join(" and ")
            );
            return;
        }
    }
    if given.is_none() {
        // Touched by every build, also one that changed nothing.
        let stamp = directory.join("stamp");
        println!("cargo::rerun-if-changed={}", stamp.display());
        warn_of_newer_sources(&root.join("ebpf"), modified(&stamp));
    }
}

/// The embedded programs must be those of the tree: says so when they are not.
fn warn_of_newer_sources(ebpf: &Path, built: SystemTime) {
    let mut directories = vec![ebpf.join("common/src"), ebpf.join("programs/src")];
    let mut newer = None;
    while let Some(directory) = directories.pop() {
        println!("cargo::rerun-if-changed={}", directory.display());
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if modified(&path) > built {
                newer = Some(path);
            }
        }
    }
    if let Some(path) = newer {
        println!("cargo::warning={} is newer than the kernel programs: run `cargo xtask ebpf`", path.display());
    }
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}
