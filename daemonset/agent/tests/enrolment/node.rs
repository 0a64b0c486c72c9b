//! A node for one test: cgroups, bpf file system, cluster directory, an agent, pods and proxies, all real processes.
//! Everything goes away with it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use contract::admin::agent::{NodeReport, PodReport};
use runtime::sys::Netns;

use crate::roles::{CALLER, CLIENT, PROXY, RELAY};
use crate::{DESTINATION, HELD};

const DEADLINE: Duration = Duration::from_secs(20);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
pub(crate) const ADDRESSES: [&str; 2] = ["10.99.0.2", "fd99::2"];
/// The port that each pod declares as its readiness probe.
pub(crate) const PROBE_PORT: u16 = 8089;

static COUNT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    cgroup: PathBuf,
    children: Vec<Child>,
    /// The proxy that was started last, and the process of [`Node::start_intruder`].
    proxy: Option<usize>,
    intruder: Option<usize>,
}

/// A pod: a namespace with an interface, and a process in it that does nothing.
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

impl Node {
    /// `None`, with the reason printed, where the kernel or our rights do not suffice; a failure when `CI` is set.
    pub(crate) fn new() -> Option<Self> {
        let attempt = Self::try_new();
        if let Err(reason) = &attempt {
            assert!(std::env::var_os("CI").is_none(), "skipped: {reason}");
            println!("skipped: {reason}");
        }
        attempt.ok()
    }

    fn try_new() -> Result<Self, String> {
        ebpf_loader::probe::kernel().map_err(|error| error.to_string())?;
        Netns::create().map_err(|error| format!("cannot make a netns: {error}"))?;
        let root = runtime::sys::cgroup2_mount().map_err(|error| error.to_string())?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = root.join(format!("strake-agent-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).map_err(|error| format!("cannot make a cgroup: {error}"))?;
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        for name in ["bpf", "run", "state", "manifests"] {
            fs::create_dir(dir.path().join(name)).map_err(|error| error.to_string())?;
        }
        let node = Self { dir, cgroup, children: Vec::new(), proxy: None, intruder: None };
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(node.path("bpf")).status();
        match mounted {
            Ok(status) if status.success() => Ok(node),
            other => Err(format!("cannot mount a bpf file system: {other:?}")),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the namespace `app`, in the mesh or not.
    pub(crate) fn label_namespace(&self, ambient: bool) {
        let label = if ambient { "  labels: { istio.io/dataplane-mode: ambient }\n" } else { "" };
        self.manifest("app.yaml", &format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: app\n{label}"));
    }

    fn manifest(&self, name: &str, text: &str) {
        let draft = self.path("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path("manifests").join(name)).unwrap();
    }

    /// Starts the agent and returns when it serves its admin socket.
    pub(crate) fn start_agent(&mut self) -> usize {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strake-agent"));
        self.flags(&mut command);
        self.children.push(command.spawn().unwrap());
        self.until("the agent is ready", |node| node.get("/readyz").filter(|answer| answer.contains("200 OK")));
        self.children.len() - 1
    }

    pub(crate) fn uninstall(&self) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strake-agent"));
        command.arg("uninstall");
        self.flags(&mut command);
        command.status().unwrap().success()
    }

    fn flags(&self, command: &mut Command) {
        command.args(["--node", "node-1", "--host-netns", "/proc/self/ns/net", "--unenrol-grace", "10s"]);
        command.args(["--monitoring-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"]);
        for (flag, path) in [
            ("--manifests", self.path("manifests")),
            ("--state", self.path("state")),
            ("--cgroup-root", self.cgroup.clone()),
            ("--bpffs-dir", self.path("bpf/mesh")),
            ("--ztunnel-uds-address", self.path("zds.sock")),
            ("--run-dir", self.path("run")),
            ("--cni-agent-run-dir", self.path("run")),
        ] {
            command.arg(flag).arg(path);
        }
    }

    /// A running pod in namespace `app` of this node.
    pub(crate) async fn start_pod(&mut self, name: &str) -> Pod {
        let netns = Netns::create().unwrap();
        add_interface(&netns).await;
        let uid = format!("00000000-0000-4000-8000-{:0>12}", self.children.len());
        let mut pause = self.joining(&format!("kubepods/pod{uid}/pause"), Path::new("sleep"));
        pause.arg("1000");
        self.children.push(netns.run(|| pause.spawn()).unwrap());
        let procs = self.cgroup.join(format!("kubepods/pod{uid}/pause/cgroup.procs"));
        self.until("the pod runs", |_| fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty()).then_some(()));
        let pod = Pod { uid, name: name.to_owned(), netns };
        self.describe(&pod);
        pod
    }

    /// Another process in the pod's cgroup, on its way through somebody else's namespace.
    pub(crate) fn start_process_in(&mut self, pod: &Pod, netns: &Netns) {
        let mut process = self.joining(&format!("kubepods/pod{}/app", pod.uid), Path::new("sleep"));
        process.arg("1000");
        self.children.push(netns.run(|| process.spawn()).unwrap());
        let procs = self.cgroup.join(format!("kubepods/pod{}/app/cgroup.procs", pod.uid));
        self.until("the process is in its cgroup", |_| {
            fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty()).then_some(())
        });
    }

    /// Ends the process with which the pod was started. Its uid ends with the number of that child.
    pub(crate) fn stop_pause(&mut self, pod: &Pod) {
        self.kill(pod.uid.rsplit('-').next().unwrap().parse().unwrap());
    }

    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A pod whose network is there and of which no process runs: as its CNI plugin sees it. The cluster knows nothing of it.
    pub(crate) async fn start_sandbox(&self, name: &str, number: u32) -> Pod {
        let netns = Netns::create().unwrap();
        add_interface(&netns).await;
        Pod { uid: format!("00000000-0000-4000-9000-{number:0>12}"), name: name.to_owned(), netns }
    }

    /// Describes a pod as the API server does when it is bound to this node and has no address yet.
    pub(crate) fn schedule(&self, pod: &Pod) {
        self.write_pod(pod, "status:\n  phase: Pending\n");
    }

    fn describe(&self, pod: &Pod) {
        let ips: Vec<String> = ADDRESSES.iter().map(|ip| format!("{{ ip: \"{ip}\" }}")).collect();
        let (ip, ips) = (ADDRESSES[0], ips.join(", "));
        self.write_pod(pod, &format!("status:\n  phase: Running\n  podIP: {ip}\n  podIPs: [{ips}]\n"));
    }

    /// Tells the agent that the pod's containers have ended.
    pub(crate) fn finish(&self, pod: &Pod) {
        self.write_pod(pod, &format!("status:\n  phase: Succeeded\n  podIP: {}\n", ADDRESSES[0]));
    }

    fn write_pod(&self, pod: &Pod, status: &str) {
        let directory = self.path("state/objects/Pod/app");
        fs::create_dir_all(&directory).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: app\n  uid: {uid}\n\
             spec:\n  nodeName: node-1\n  serviceAccountName: sa\n  containers:\n  - name: app\n    image: none\n    \
             readinessProbe: {{ tcpSocket: {{ port: {PROBE_PORT} }} }}\n{status}",
            name = pod.name,
            uid = pod.uid,
        );
        let draft = self.path("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, directory.join(format!("{}.yaml", pod.name))).unwrap();
    }

    pub(crate) fn forget(&self, pod: &Pod) {
        fs::remove_file(self.path("state/objects/Pod/app").join(format!("{}.yaml", pod.name))).unwrap();
    }

    /// A proxy in this cgroup of the node; see `proxy` in `main`.
    pub(crate) fn start_proxy(&mut self, cgroup: &str) -> usize {
        let mut proxy = self.joining(cgroup, &std::env::current_exe().unwrap());
        proxy
            .args(["roles::proxy_process", "--exact", "--nocapture"])
            .env(PROXY, self.path("zds.sock"))
            .stdout(Stdio::null());
        self.children.push(proxy.spawn().unwrap());
        self.proxy = Some(self.children.len() - 1);
        self.children.len() - 1
    }

    /// As [`Node::start_proxy`], behind a relay; see `relay`.
    pub(crate) fn start_relayed_proxy(&mut self, cgroup: &str) {
        let mut proxy = self.joining(cgroup, &std::env::current_exe().unwrap());
        proxy
            .args(["roles::proxy_process", "--exact", "--nocapture"])
            .env(PROXY, self.path("zds.sock"))
            .env(RELAY, self.path("orders"))
            .stdout(Stdio::null());
        self.children.push(proxy.spawn().unwrap());
    }

    /// Ends the proxy that was started last.
    pub(crate) fn stop_proxy(&mut self) {
        let proxy = self.proxy.take().expect("a proxy runs");
        self.kill(proxy);
    }

    /// A process that does nothing in this cgroup of the node.
    pub(crate) fn start_intruder(&mut self, cgroup: &str) {
        let mut process = self.joining(cgroup, Path::new("sleep"));
        self.children.push(process.arg("1000").spawn().unwrap());
        self.intruder = Some(self.children.len() - 1);
    }

    pub(crate) fn stop_intruder(&mut self) {
        let intruder = self.intruder.take().expect("an intruder runs");
        self.kill(intruder);
    }

    /// Sets how many descriptors a child may have open; those that it has stay. Returns how many it was.
    pub(crate) fn limit_descriptors(&self, child: usize, limit: u64) -> u64 {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let pid = Pid::from_child(&self.children[child]);
        let maximum = getrlimit(Resource::Nofile).maximum;
        let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
        before.current.unwrap_or(1024)
    }

    /// The value of a line of a child's `/proc/<pid>/status`.
    pub(crate) fn status(&self, child: usize, key: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.children[child].id())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {status}"))
    }

    pub(crate) fn kill(&mut self, child: usize) {
        self.children[child].kill().unwrap();
        self.children[child].wait().unwrap();
    }

    /// Returns the answer that a process of the pod reads from this address, or the error.
    pub(crate) fn connect(&self, pod: &Pod, to: &str) -> String {
        let mut client = self.joining(&format!("kubepods/pod{}/app", pod.uid), &std::env::current_exe().unwrap());
        client.args(["roles::client_process", "--exact", "--nocapture"]).env(CLIENT, to);
        let output = pod.netns.run(|| client.output()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.split_once("client: ").and_then(|(_, said)| said.lines().next());
        said.unwrap_or(&text).to_owned()
    }

    /// A process of the pod with a connection that the proxy keeps open as long as the process lives.
    pub(crate) fn hold_connection(&mut self, pod: &Pod) -> usize {
        let mut client = self.joining(&format!("kubepods/pod{}/app", pod.uid), &std::env::current_exe().unwrap());
        client.args(["roles::client_process", "--exact", "--nocapture"]).env(CLIENT, HELD).stdout(Stdio::piped());
        let mut child = pod.netns.run(|| client.spawn()).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("holding")), "no connection");
        self.children.push(child);
        self.children.len() - 1
    }

    /// A process of the pod that calls [`DESTINATION`] again and again; for [`Node::stop_calling`].
    pub(crate) fn start_calling(&mut self, pod: &Pod) -> usize {
        self.start_caller(pod, "roles::caller_process")
    }

    /// As [`Node::start_calling`], without a connection that stays.
    pub(crate) fn start_calling_alone(&mut self, pod: &Pod) -> usize {
        self.start_caller(pod, "roles::lone_caller_process")
    }

    fn start_caller(&mut self, pod: &Pod, role: &str) -> usize {
        let mut caller = self.joining(&format!("kubepods/pod{}/app", pod.uid), &std::env::current_exe().unwrap());
        caller.args([role, "--exact", "--nocapture"]).env(CALLER, DESTINATION);
        caller.stdin(Stdio::piped()).stdout(fs::File::create(self.path("calls")).unwrap());
        self.children.push(pod.netns.run(|| caller.spawn()).unwrap());
        self.until("a call was answered", |node| (!node.calls().is_empty()).then_some(()));
        self.children.len() - 1
    }

    /// Ends the calls and returns what each has got.
    pub(crate) fn stop_calling(&mut self, caller: usize) -> Vec<String> {
        drop(self.children[caller].stdin.take());
        assert!(self.children[caller].wait().unwrap().success());
        self.calls()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap();
        text.lines().filter_map(|line| Some(line.split_once("client: ")?.1.to_owned())).collect()
    }

    /// Every file below a directory of the node; none when it is not there.
    pub(crate) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut pending = vec![self.path(directory)];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files
    }

    /// The value of a metric without labels.
    pub(crate) fn count(&self, metric: &str) -> Option<usize> {
        let metrics = self.get("/metrics")?;
        metrics.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok())
    }

    /// Ends a child with SIGTERM; true when it succeeds.
    pub(crate) fn terminate(&mut self, child: usize) -> bool {
        let pid = rustix::process::Pid::from_child(&self.children[child]);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.children[child].wait().unwrap().success()
    }

    /// A command that joins a cgroup of the node and then becomes `program`.
    fn joining(&self, cgroup: &str, program: &Path) -> Command {
        let cgroup = self.cgroup.join(cgroup);
        fs::create_dir_all(&cgroup).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#]).arg(cgroup).arg(program);
        command
    }

    pub(crate) fn report(&self, pod: &Pod) -> Option<PodReport> {
        let answer = self.get("/pods")?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let report: NodeReport = serde_json::from_str(body).ok()?;
        report.pods.into_iter().find(|report| report.uid == pod.uid)
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("run/admin.sock")).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The file by which the agent tells the cluster of the pod.
    pub(crate) fn overlay(&self, pod: &Pod) -> PathBuf {
        self.path("state/status/agent-node-1/Pod/app").join(format!("{}.yaml", pod.name))
    }

    pub(crate) fn is_annotated(&self, pod: &Pod) -> bool {
        fs::read_to_string(self.overlay(pod)).is_ok_and(|text| text.contains("enabled"))
    }

    /// Asks again until there is an answer.
    pub(crate) fn until<T>(&self, what: &str, answer: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = answer(self) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: {what}\n{}",
                self.get("/pods").unwrap_or_default()
            );
            std::thread::park_timeout(PAUSE);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _: (std::io::Result<()>, _) = (child.kill(), child.wait());
        }
        let _: std::io::Result<_> = Command::new("umount").arg("-l").arg(self.path("bpf")).status();
        remove_cgroups(&self.cgroup);
    }
}

fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroups(&entry.path());
        }
    }
    let _: std::io::Result<()> = fs::remove_dir(cgroup);
}

/// `eth0` with the pod's addresses, and loopback.
async fn add_interface(netns: &Netns) {
    let (connection, handle, _) = netns.run(rtnetlink::new_connection).unwrap();
    let driver = tokio::spawn(connection);
    handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
    handle.link().add(rtnetlink::LinkVeth::new("eth0", "peer0").up().build()).execute().await.unwrap();
    let peer = rtnetlink::LinkUnspec::new_with_name("peer0").up().build();
    handle.link().set(peer).execute().await.unwrap();
    let index = netns.run(|| {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        Ok(rustix::net::netdevice::name_to_index(socket, "eth0")?)
    });
    for ip in ADDRESSES {
        let ip: IpAddr = ip.parse().unwrap();
        let mut request =
            handle.address().add(index.as_ref().copied().unwrap(), ip, if ip.is_ipv4() { 32 } else { 128 });
        request.message_mut().header.flags = rtnetlink::packet_route::address::AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
    }
    driver.abort();
}
