//! Memory of the control plane by the number of pods.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::manifests::NAMESPACE;
use support::write_tokens;

/// Time until all pods have to be served.
const DEADLINE: Duration = Duration::from_secs(120);

/// Pods in one file.
const PER_FILE: usize = 100;

/// Memory that a control plane without pods may have, in KiB, and what each pod may add to it.
const BASE_KIB: u64 = 24 * 1024;
const PER_POD_KIB: u64 = 16;

/// A process that ends with the test.
struct Control(Child);

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pods(from: usize, to: usize) -> String {
    let mut text = String::new();
    for n in from..to {
        let (a, b) = (n / 250, n % 250 + 1);
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{n}, namespace: app, labels: {{app: web-{service}}}}}\n\
             spec: {{nodeName: n{node}, serviceAccountName: web, containers: [{{name: c, image: web}}]}}\n\
             status: {{phase: Running, podIP: 10.1.{a}.{b}, conditions: [{{type: Ready, status: 'True'}}]}}\n",
            service = n / 10,
            node = n % 100,
        );
    }
    text
}

fn is_ready(admin: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = UnixStream::connect(admin)?;
        socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A line of `/proc/<pid>/status`, in KiB.
fn memory(control: &Control, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", control.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Resident memory and its peak of a control plane with so many pods, in KiB.
fn with_pods(count: usize) -> (u64, u64) {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("manifests")).unwrap();
    fs::write(path("manifests/ns.yaml"), NAMESPACE).unwrap();
    for from in (0..count).step_by(PER_FILE) {
        fs::write(path("manifests").join(format!("pods-{from}.yaml")), pods(from, from + PER_FILE)).unwrap();
    }
    write_tokens(&path("tokens"));
    let control = Command::new(env!("CARGO_BIN_EXE_strake-control"))
        .args(["--listen", "127.0.0.1:0", "--monitoring-address", "127.0.0.1:0"])
        .args(["--manifests".as_ref(), path("manifests").as_os_str()])
        .args(["--state".as_ref(), path("state").as_os_str()])
        .args(["--ca-dir".as_ref(), path("ca").as_os_str()])
        .args(["--node-tokens".as_ref(), path("tokens").as_os_str()])
        .args(["--run-dir".as_ref(), path("run").as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let control = Control(control);
    let begun = Instant::now();
    while !is_ready(&path("run/admin.sock")) {
        assert!(begun.elapsed() < DEADLINE, "not ready with {count} pods");
        std::thread::yield_now();
    }
    (memory(&control, "VmRSS:"), memory(&control, "VmHWM:"))
}

#[test]
fn memory_stays_within_a_budget_per_pod() {
    for pods in [1000, 10_000] {
        let (resident, peak) = with_pods(pods);

        println!("{pods} pods: {resident} KiB resident, {peak} KiB at most");
        let budget = BASE_KIB + PER_POD_KIB * pods as u64;
        assert!(resident <= budget, "{pods} pods take {resident} KiB (peak {peak}), the budget is {budget} KiB");
    }
}
