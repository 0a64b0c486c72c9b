//! The plugin as a process, as a container runtime runs it: with an agent that answers well, badly or not at all, and with an
//! API server or without one.

mod agent;
mod api;
mod calls;
mod without_agent;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Arguments of a kubelet.
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u1";

/// Result of a plugin before this one, with a field that this one does not know.
fn previous() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/var/run/netns/x", "mac": "0a:58:0a:f4:01:07"}],
        "ips": [{"interface": 1, "address": "10.244.1.7/24", "gateway": "10.244.1.1"}],
        "dns": {},
        "somebody's": {"own": [1, 2.5, null]},
    })
}

/// The plugin in a directory of a node, without an agent.
struct Plugin {
    dir: TempDir,
    network: Value,
}

impl Plugin {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "strake-cni",
            "cni_agent_run_dir": dir.path(), "pod_namespace": "istio-system", "exclude_namespaces": ["kube-system"],
            "log_file": dir.path().join("strake-cni.log"), "prevResult": previous(),
        });
        Self { dir, network }
    }

    /// Sets a field of the plugin's configuration.
    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.network[field] = value.into();
        self
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("pluginevent.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("strake-cni.log")).unwrap_or_default()
    }

    fn run(&self, command: &str) -> Answer {
        self.run_with(command, ARGS)
    }

    fn run_with(&self, command: &str, args: &str) -> Answer {
        run(command, args, self.network.to_string().as_bytes())
    }
}

/// Outcome of a call, as a container runtime sees it.
#[derive(Debug)]
struct Answer {
    is_success: bool,
    stdout: String,
}

impl Answer {
    /// The pod starts, with the result of the plugin before.
    fn starts(&self) -> bool {
        let result: Value = serde_json::from_str(&self.stdout).unwrap_or_default();
        self.is_success && result == previous()
    }

    /// Code and message of the error.
    fn error(&self) -> (u64, String) {
        assert!(!self.is_success, "{self:?}");
        let error: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(error["cniVersion"].is_string(), "{error}");
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    }
}

fn run(command: &str, args: &str, input: &[u8]) -> Answer {
    let mut child = Command::new(Path::new(env!("CARGO_BIN_EXE_strake-cni")))
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_ARGS", args), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", "/var/run/netns/x"), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A plugin that ends without reading all of it has its reasons.
    let _: std::io::Result<()> = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    Answer { is_success: status.success(), stdout: String::from_utf8(stdout).unwrap() }
}
