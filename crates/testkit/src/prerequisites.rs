//! Prerequisites of end-to-end tests on a machine. It installs nothing.

use std::{env, path::PathBuf};

/// Programs that every lab of a test starts, and those of the mesh.
const PROGRAMS: [&str; 2] = ["strake", "strake-testapp"];
const MESH: [&str; 3] = ["strake-control", "strake-agent", "ztunnel"];

/// Directory of Strake's programs: `STRAKE_BIN_DIR`, else where cargo put them for this test.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os(lab::BIN_DIR_VARIABLE) {
        return dir.into();
    }
    // target/<profile>/deps/<test>
    env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_path_buf())).unwrap_or_default()
}

/// Reason why an end-to-end test cannot run here, with or without the mesh; `None` when it can.
#[must_use]
pub fn missing(mesh: bool) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root (namespaces, cgroups, kernel programs)".into());
    }
    if let Err(err) = lab::paths::Cgroups::of("probe") {
        return Some(err.to_string());
    }
    let dir = bin_dir();
    let wanted = PROGRAMS.into_iter().chain(MESH.into_iter().filter(|_| mesh));
    // A missing program is a skip and not a failure: `cargo test -p` of one package does not build the others.
    let absent: Vec<_> = wanted.filter(|program| !dir.join(program).exists()).collect();
    if absent.is_empty() {
        return None;
    }
    Some(format!("{} not in {}: run `make build`", absent.join(", "), dir.display()))
}

/// Returns true if the test may run. Where not, prints `skipped: <reason>`.
///
/// # Panics
/// With `CI=true`: there a skip is a failure.
#[must_use]
pub fn met(reason: Option<String>) -> bool {
    let Some(reason) = reason else { return true };
    assert!(env::var("CI").as_deref() != Ok("true"), "cannot be skipped with CI=true: {reason}");
    println!("skipped: {reason}");
    eprintln!("skipped: {reason}");
    false
}
