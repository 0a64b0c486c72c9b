//! The mesh in a cluster: images of the programs, and the commands that install and remove it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use testkit::prerequisites;

use super::Cluster;

/// Programs that run in a cluster.
const PROGRAMS: [&str; 3] = ["strake-agent", "strake-control", "ztunnel"];

/// Images that `scripts/images.sh` makes: also that of the Job with which the chart is removed.
pub(crate) const IMAGES: [&str; 4] = ["strake", "strake-agent", "strake-control", "ztunnel"];

/// Loads the images of this build into every node.
///
/// # Errors
/// When one cannot be made or loaded.
pub(crate) fn import(cluster: &Cluster) -> Result<()> {
    let made = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/images.sh");
    let output = Command::new(script).arg(prerequisites::bin_dir()).arg(made.path()).output()?;
    ensure!(output.status.success(), "images: {}", String::from_utf8_lossy(&output.stderr));
    let files = IMAGES.map(|name| made.path().join(format!("{name}.tar")).display().to_string());
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    cluster.command(&[&["import"], &files[..]].concat()).map(drop)
}

/// Runs a command of the command line against the cluster; its standard output.
///
/// # Errors
/// When it fails, with what it printed.
pub(crate) fn strake(cluster: &Cluster, args: &[&str]) -> Result<String> {
    let output = Command::new(prerequisites::bin_dir().join("strake"))
        .args(args)
        .arg("--kubeconfig")
        .arg(kubeconfig(cluster))
        .output()
        .context("cannot start strake")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "strake {}: {stdout}{stderr}", args.join(" "));
    Ok(stdout.into_owned())
}

/// Runs Helm, in the repository, against the cluster; its standard output.
///
/// # Errors
/// When it fails, with what it printed.
pub(crate) fn helm(cluster: &Cluster, args: &[&str]) -> Result<String> {
    helm_alone(&[args, &["--kubeconfig", &kubeconfig(cluster).display().to_string()]].concat())
}

/// Runs Helm, in the repository, without a cluster; its standard output.
///
/// # Errors
/// When it fails, with what it printed.
pub(crate) fn helm_alone(args: &[&str]) -> Result<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(repository.join("target/kubernetes/bin/helm"))
        .args(args)
        .current_dir(&repository)
        .output()
        .context("cannot start helm")?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "helm {}: {stdout}{stderr}", args.join(" "));
    Ok(stdout.into_owned())
}

fn kubeconfig(cluster: &Cluster) -> PathBuf {
    Path::new("/run/strake/cluster").join(cluster.name()).join("kubeconfig")
}

/// State and last log lines of the mesh's pods, for the message of a failure.
pub(crate) fn logs(cluster: &Cluster) -> String {
    let show = |args: &[&str]| cluster.kubectl(args).unwrap_or_else(|error| format!("{error:#}"));
    let mut text = show(&["--namespace=istio-system", "get", "pods,events", "--output=wide"]);
    for app in PROGRAMS {
        let logs = ["--namespace=istio-system", "logs", "--prefix", "--tail=40", "--selector"];
        text.push_str(&show(&[&logs[..], &[&format!("app={app}")]].concat()));
    }
    text
}
