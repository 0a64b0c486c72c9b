//! Labs for tests: shared by the tests of one file, or made anew by one. They go down with their test process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lab::{
    Lab, Options, Output, PodInfo,
    wire::{self, Frame},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    runtime::Runtime,
};

use crate::{assert::eventually, prerequisites};

/// Start of a lab with mesh, everything ready. On two idle cores it takes some 3 s.
const UP: Duration = Duration::from_secs(90);

/// A change of a manifest until it shows everywhere. The promise is 2 s; machines that test are busy.
pub const TAKES_EFFECT: Duration = Duration::from_secs(15);

/// A lab with a directory of manifests that the test may edit.
#[derive(Debug)]
pub struct TestLab {
    lab: Lab,
    manifests: PathBuf,
}

/// A lab that the tests of one file share: started by the first of them.
#[derive(Debug)]
pub struct Shared {
    name: &'static str,
    manifests: fn() -> String,
    mesh: bool,
    cell: OnceLock<Result<TestLab, String>>,
}

/// The runtime of every test of the process; a shared lab's connections live on it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// A client of the test application that goes on (`loop`, `hold`).
#[derive(Debug)]
pub struct Load {
    process: lab::Process,
    lines: Lines<BufReader<tokio::fs::File>>,
}

impl Load {
    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(60), self.lines.next_line()).await;
        line.expect("the client speaks in time").expect("its output is readable").unwrap_or_default()
    }

    /// Its report once it ends by itself.
    ///
    /// # Panics
    /// When it does not end, or prints no report.
    pub async fn ended(mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }

    /// Stops it; its report.
    ///
    /// # Panics
    /// When it prints no report.
    pub async fn stop(mut self) -> Value {
        self.process.stdin = None;
        self.ended().await
    }
}

impl Shared {
    /// A lab of these manifests, once somebody needs it.
    #[must_use]
    pub const fn new(name: &'static str, manifests: fn() -> String) -> Self {
        Self { name, manifests, mesh: true, cell: OnceLock::new() }
    }

    /// The same without the mesh's programs.
    #[must_use]
    pub const fn plain(name: &'static str, manifests: fn() -> String) -> Self {
        Self { name, manifests, mesh: false, cell: OnceLock::new() }
    }

    /// Runs a test in the lab, or skips it where no lab can run.
    ///
    /// # Panics
    /// When the lab does not start, or the test panics.
    pub fn run<T: Future<Output = ()>>(&'static self, test: impl FnOnce(&'static TestLab) -> T) {
        if !prerequisites::met(prerequisites::missing(self.mesh)) {
            return;
        }
        let start = || {
            runtime().block_on(TestLab::up(self.name, &(self.manifests)(), self.mesh)).map_err(|err| format!("{err:#}"))
        };
        match self.cell.get_or_init(start) {
            Ok(lab) => runtime().block_on(test(lab)),
            Err(err) => panic!("the lab {} did not start: {err}", self.name),
        }
    }
}

/// Runs a test in a lab of its own that is down when this returns.
///
/// # Panics
/// When the lab does not start or leaves something behind, or the test panics.
pub fn run_alone(name: &str, manifests: &str, test: impl AsyncFnOnce(&TestLab)) {
    if !prerequisites::met(prerequisites::missing(true)) {
        return;
    }
    runtime().block_on(async {
        let lab =
            TestLab::up(name, manifests, true).await.unwrap_or_else(|err| panic!("the lab did not start: {err:#}"));
        test(&lab).await;
        lab.lab.down().await.expect("the lab goes down");
    });
}

/// Runs a test that starts labs by other means, or skips it where no lab can run.
///
/// # Panics
/// When the test does.
pub fn run(test: impl AsyncFnOnce()) {
    if prerequisites::met(prerequisites::missing(true)) {
        runtime().block_on(test());
    }
}

/// A name no other test has at this time.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl TestLab {
    /// Starts a lab of these manifests and waits until all is ready.
    ///
    /// # Errors
    /// When it does not become ready, with what is missing.
    pub async fn up(name: &str, manifests: &str, mesh: bool) -> Result<Self> {
        let bin = prerequisites::bin_dir();
        // below the build folder, so that a killed test leaves nothing elsewhere
        let dir = bin.join("labs").join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("base.yaml"), manifests)?;
        let mut options = Options::new(unique(name), &dir);
        options.program = bin.join("strake");
        options.bin_dir = bin;
        options.mesh = mesh;
        let lab = Lab::up(options, UP).await?;
        Ok(Self { lab, manifests: dir })
    }

    /// The lab.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The directory of its manifests.
    #[must_use]
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Adds or replaces a manifest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, yaml: &str) -> Result<()> {
        let path = self.manifests.join(file);
        let draft = path.with_extension("draft");
        fs::write(&draft, yaml)?;
        Ok(fs::rename(draft, path)?)
    }

    /// Removes a manifest.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.manifests.join(file))?)
    }

    /// Runs `strake` with arguments; its standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0, with what it said.
    pub fn strake(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(prerequisites::bin_dir().join("strake"))
            .args(args)
            .args(["--lab", self.lab.name()])
            .output()
            .context("strake does not start")?;
        if !output.status.success() {
            bail!("strake {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the test application's client in a pod; its report, which holds `error` when it failed.
    ///
    /// # Panics
    /// When it cannot be started or prints no report.
    pub async fn client(&self, pod: &str, args: &[&str]) -> Value {
        self.testapp(pod, &[&["client"], args].concat()).await
    }

    /// Runs the test application in a pod; the last line it printed, which is JSON.
    ///
    /// # Panics
    /// When it cannot be started or prints no report.
    pub async fn testapp(&self, pod: &str, args: &[&str]) -> Value {
        let output = self.exec(pod, &self.testapp_argv(args)).await;
        let text = output.text();
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|err| panic!("{args:?} in {pod}: {err}: {text} {}", output.error_text()))
    }

    /// The command line of the test application.
    #[must_use]
    pub fn testapp_argv(&self, args: &[&str]) -> Vec<String> {
        let program = prerequisites::bin_dir().join("strake-testapp").display().to_string();
        std::iter::once(program).chain(args.iter().map(ToString::to_string)).collect()
    }

    /// As `client`, for one that must succeed.
    ///
    /// # Panics
    /// When it reports an error.
    pub async fn client_ok(&self, pod: &str, args: &[&str]) -> Value {
        let report = self.client(pod, args).await;
        assert!(report.get("error").is_none(), "{args:?} in {pod}: {report}");
        report
    }

    /// Runs a command in a pod to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn exec<A: AsRef<str>>(&self, pod: &str, argv: &[A]) -> Output {
        self.lab.exec(pod, argv).await.unwrap_or_else(|err| panic!("exec in {pod}: {err}"))
    }

    /// A pod as the lab sees it.
    ///
    /// # Panics
    /// When there is none.
    pub async fn pod(&self, pod: &str) -> PodInfo {
        self.lab.pod(pod).await.unwrap_or_else(|err| panic!("{err}"))
    }

    /// A pod's address of a family.
    ///
    /// # Panics
    /// When it has none.
    pub async fn ip(&self, pod: &str, v6: bool) -> String {
        let info = self.pod(pod).await;
        let found = info.ips.iter().find(|ip| ip.is_ipv6() == v6);
        found.unwrap_or_else(|| panic!("{pod} has no such address: {:?}", info.ips)).to_string()
    }

    /// What `strake get pods` knows of a pod.
    ///
    /// # Errors
    /// When it is not listed.
    pub fn report(&self, pod: &str) -> Result<Value> {
        let (namespace, name) = lab::split_pod(pod);
        let all: Value = serde_json::from_str(&self.strake(&["get", "pods", "-n", namespace, "-o", "json"])?)?;
        let found = all["pods"].as_array().and_then(|pods| pods.iter().find(|p| p["name"] == name));
        found.cloned().with_context(|| format!("strake get pods does not list {pod}"))
    }

    /// Waits until `strake get pods` says `state` of a pod.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn wait_state(&self, pod: &str, state: &str) -> Value {
        eventually(&format!("{pod} is {state}"), TAKES_EFFECT, async || {
            let report = self.report(pod)?;
            if report["state"] == state { Ok(report) } else { Err(anyhow::anyhow!("{report}")) }
        })
        .await
    }

    /// Waits until these pods are proved and both nodes' ztunnels know that they speak HBONE.
    ///
    /// # Panics
    /// When that does not come true in time.
    pub async fn meshed(&self, pods: &[&str]) {
        for pod in pods {
            self.wait_state(pod, "enrolled").await;
        }
        self.announced(pods, "HBONE").await;
    }

    /// Waits until every node's ztunnel knows these pods by a protocol, `HBONE` or `TCP`.
    ///
    /// # Panics
    /// When that does not come true in time.
    pub async fn announced(&self, pods: &[&str], protocol: &str) {
        for node in self.lab.nodes().await.expect("nodes") {
            let what = format!("the ztunnel of {} knows {pods:?} by {protocol}", node.name);
            eventually(&what, TAKES_EFFECT, async || self.knows(&node.name, pods, protocol).await).await;
        }
    }

    async fn knows(&self, node: &str, pods: &[&str], protocol: &str) -> Result<()> {
        let dump: Value = serde_json::from_str(&self.admin(node, "http://localhost:15000/config_dump").await?)?;
        let workloads = dump["workloads"].as_array().context("no workloads in config_dump")?;
        for pod in pods {
            let (namespace, name) = lab::split_pod(pod);
            let found = workloads.iter().find(|w| w["name"] == name && w["namespace"] == namespace);
            let found = found.with_context(|| format!("{pod} is not known"))?;
            if found["protocol"] != protocol {
                bail!("{pod} is {}", found["protocol"]);
            }
        }
        Ok(())
    }

    /// A GET from a node, from the cgroup of its prober: what a kubelet's probe is. The body of the answer.
    ///
    /// # Errors
    /// When it is not answered with success.
    pub async fn probe(&self, node: &str, url: &str) -> Result<String> {
        let cgroup = self.lab.cgroups().root().join(node).join("kubelet/cgroup.procs");
        let script =
            format!("echo 0 > {} && exec curl --silent --show-error --fail --globoff -m 5 {url}", cgroup.display());
        let output = self.lab.exec_on_node(node, &["sh", "-c", &script]).await?;
        if output.code != 0 {
            bail!("{url} from {node}: {}", output.error_text());
        }
        Ok(output.text())
    }

    /// Fails unless each of these reports, IPv4 and IPv6, says that the call was refused: an error at once, not a wait in
    /// vain, and a line of `node`'s ztunnel after byte `since` of its log that names `policy` and the server's address.
    ///
    /// # Errors
    /// What is not so.
    pub async fn refused_by(&self, reports: &[Value], server: &str, policy: &str, since: usize) -> Result<()> {
        let node = self.pod(server).await.node;
        let denied = format!("explicitly denied by: {policy}\"");
        for (report, v6) in reports.iter().zip([false, true]) {
            let kind = report["kind"].as_str().with_context(|| format!("it was answered: {report}"))?;
            if ["TimedOut", "WouldBlock"].contains(&kind) {
                bail!("lost, not refused: {report}");
            }
            let address = std::net::SocketAddr::new(self.ip(server, v6).await.parse()?, 8080).to_string();
            let log = self.ztunnel_log(&node);
            let line =
                lab::output::line_with(log.get(since..).unwrap_or_default(), &[&format!("={address} "), &denied]);
            line.with_context(|| format!("{node}'s ztunnel names no {denied} for {address}: {report}"))?;
        }
        Ok(())
    }

    /// A page of a node's ztunnel, asked for beside it.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn admin(&self, node: &str, url: &str) -> Result<String> {
        let argv = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", url];
        let output = self.lab.exec(&format!("istio-system/ztunnel-{node}"), &argv).await?;
        if output.code != 0 {
            bail!("{url} on {node}: {}", output.error_text());
        }
        Ok(output.text())
    }

    /// A node's metrics.
    ///
    /// # Errors
    /// When its ztunnel does not answer.
    pub async fn metrics(&self, node: &str) -> Result<String> {
        self.admin(node, "http://localhost:15020/metrics").await
    }

    /// What a node's ztunnel has printed since the lab began.
    #[must_use]
    pub fn ztunnel_log(&self, node: &str) -> String {
        self.log(&format!("istio-system/ztunnel-{node}"), "ztunnel")
    }

    /// Looks through a capture at the traffic among these pods.
    ///
    /// # Panics
    /// When one of them is not there.
    pub async fn audit(&self, frames: &[Frame], pods: &[&str]) -> wire::Audit {
        let mut ips = Vec::new();
        for pod in pods {
            ips.extend(self.pod(pod).await.ips);
        }
        wire::audit(frames.iter().map(|frame| frame.bytes.as_slice()), 15008, |ip| ips.contains(&ip))
    }

    /// Starts the test application's client in a pod; it goes on until its input ends.
    ///
    /// # Panics
    /// When it cannot be started or does not begin.
    pub async fn load(&self, pod: &str, args: &[&str]) -> Load {
        let argv = self.testapp_argv(&[&["client"], args].concat());
        let mut process = self.lab.spawn(pod, &argv).await.unwrap_or_else(|err| panic!("{args:?} in {pod}: {err}"));
        let nothing = tokio::fs::File::open("/dev/null").await.expect("/dev/null");
        let lines = BufReader::new(std::mem::replace(&mut process.stdout, nothing)).lines();
        let mut load = Load { process, lines };
        assert_eq!(load.line().await, "started", "{args:?} in {pod}");
        load
    }

    /// A container's output since the lab began.
    #[must_use]
    pub fn log(&self, pod: &str, container: &str) -> String {
        fs::read_to_string(self.lab.log(pod, container)).unwrap_or_default()
    }

    /// The frames on a node's wire while `work` runs.
    ///
    /// # Panics
    /// When the capture fails.
    pub async fn captured<T>(&self, node: &str, work: impl Future<Output = T>) -> (T, Vec<Frame>) {
        let capture = self.lab.capture(node).await.expect("a capture starts");
        let result = work.await;
        let captured = capture.stop().await.expect("a capture ends");
        let file = fs::read(&captured.file).expect("the capture is readable");
        let _ = fs::remove_file(&captured.file);
        (result, wire::read_pcap(&file).expect("a pcap file"))
    }
}
