//! A cluster that lives as long as its value, and the commands for it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use testkit::prerequisites;

/// Options of a cluster, as `cluster help` explains them.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) nodes: u8,
    pub(crate) kube_proxy: &'static str,
    pub(crate) cni: &'static str,
    pub(crate) dns: bool,
    pub(crate) audit: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 2, kube_proxy: "nftables", cni: "bridge", dns: true, audit: false }
    }
}

/// A running cluster. Dropping it ends it; so does the end of this process, however it comes.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    logs: PathBuf,
    runner: Child,
}

impl Cluster {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready, with what the start printed.
    pub(crate) fn start(purpose: &str, options: &Options) -> Result<Self> {
        let name = unique(purpose);
        let mut runner = Self::runner(&name, options)?;
        let stdout = runner.stdout.take().context("the runner has no output")?;
        let logs = logs(&name);
        let cluster = Self { name, logs, runner };
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if line == "ready" {
                return Ok(cluster);
            }
            eprintln!("{}: {line}", cluster.name);
        }
        anyhow::bail!("cluster {} did not become ready; logs are in {}", cluster.name, cluster.logs.display())
    }

    /// Starts the command that runs a cluster, for tests that end it early.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn runner(name: &str, options: &Options) -> Result<Child> {
        let mut command = Command::new(script());
        command.args(["--name", name, "run", "--nodes", &options.nodes.to_string()]);
        command.args(["--kube-proxy", options.kube_proxy, "--cni", options.cni, "--logs"]).arg(logs(name));
        if !options.dns {
            command.arg("--no-dns");
        }
        if options.audit {
            command.arg("--audit");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the cluster")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A log file, such as `audit.log` or `node-1/kubelet.log`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn log(&self, file: &str) -> Result<String> {
        let path = self.logs.join(file);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Runs a command of the cluster's script; its standard output without white space at its end.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub(crate) fn command(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(script()).args(["--name", &self.name]).args(args).stdin(Stdio::null()).output()?;
        text(output).with_context(|| args.join(" "))
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.command(&[&["kubectl"], args].concat())
    }

    /// Runs a command on a node, or in the network of the control plane (`control`).
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub(crate) fn on(&self, node: &str, argv: &[&str]) -> Result<String> {
        self.command(&[&["exec", node], argv].concat())
    }

    /// Writes a file on a node, as a whole: beside its place first.
    ///
    /// # Errors
    /// When it cannot be written, with what was printed.
    pub(crate) fn write_on(&self, node: &str, path: &str, mode: &str, bytes: &[u8]) -> Result<()> {
        let write = format!("cat >{path}.tmp && chmod {mode} {path}.tmp && mv {path}.tmp {path}");
        let mut child = Command::new(script())
            .args(["--name", &self.name, "exec", node, "sh", "-c", &write])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("the command has no input")?.write_all(bytes)?;
        text(child.wait_with_output()?).with_context(|| format!("write {path}")).map(drop)
    }

    /// A field of objects, by JSONPath without braces: `field("demo", "pod/client", ".status.podIP")`.
    ///
    /// # Errors
    /// When there is no such object.
    pub(crate) fn field(&self, namespace: &str, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["--namespace", namespace, "get", object, "--output", &format!("jsonpath={{{path}}}")])
    }

    /// Applies manifests in a namespace, which is created if need be.
    ///
    /// # Errors
    /// When the API server refuses one of them, with its reason.
    pub(crate) fn apply(&self, namespace: &str, manifests: &str) -> Result<()> {
        let own = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n");
        let apply = ["--namespace", namespace, "apply", "--filename=-"];
        self.kubectl_reading(&apply, &format!("{own}{manifests}")).map(drop)
    }

    /// Runs kubectl with this text as its standard input.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub(crate) fn kubectl_reading(&self, args: &[&str], input: &str) -> Result<String> {
        let mut kubectl = Command::new(script())
            .args(["--name", &self.name, "kubectl"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = kubectl.stdin.take().context("kubectl has no input")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        text(kubectl.wait_with_output()?).with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// Waits until all pods of a namespace are ready.
    ///
    /// # Errors
    /// When they are not in time, with the namespace's pods and events.
    pub(crate) fn wait_ready(&self, namespace: &str) -> Result<()> {
        let ready = ["--namespace", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"];
        self.kubectl(&ready).map(drop).map_err(|err| {
            let show =
                |what| self.kubectl(&["--namespace", namespace, "get", what, "--output=wide"]).unwrap_or_default();
            err.context(format!("{}\n{}", show("pods"), show("events")))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.runner.stdin.take());
        // Its end is what a test that follows may rely on; a failure has been printed.
        let _ = self.runner.wait();
    }
}

/// The script of all commands.
pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes/cluster/cluster")
}

/// A directory for the logs of a cluster. It stays until the next run of a test of that name.
fn logs(name: &str) -> PathBuf {
    prerequisites::bin_dir()
        .join("clusters")
        .join(name.trim_end_matches(|end: char| end.is_ascii_digit() || end == '-'))
}

/// A name that no other cluster of this machine has.
pub(crate) fn unique(purpose: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t-{purpose}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn text(output: Output) -> Result<String> {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {} {}", output.status, stdout.trim(), stderr.trim());
    Ok(stdout.trim_end().to_owned())
}
