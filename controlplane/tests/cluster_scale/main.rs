//! The control plane on a real API server with 1 000 nodes and 20 000 pods: memory, first push, one change, restart. It takes
//! some minutes, and needs `make cluster-build`:
//! `cargo test --workspace --test cluster_scale -- --ignored --nocapture`. Smaller with `STRAKE_SCALE_PODS`; another build of
//! the program with `STRAKE_CONTROL_BIN`.

mod api_server;
mod mesh;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api_server::ApiServerProcess;
use mesh::Mesh;
use proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Time for the largest step.
const DEADLINE: Duration = Duration::from_secs(900);

/// Changes that are followed to the wire.
const CHANGES: usize = 20;

/// A control plane that ends with the test.
struct Control {
    process: Child,
    run: PathBuf,
}

impl Control {
    fn start(directory: &Path, server: &ApiServerProcess) -> Self {
        let path = |name: &str| directory.join(name);
        let binary = std::env::var("STRAKE_CONTROL_BIN");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_strake-control").to_owned());
        let log = std::fs::File::create(path("control.log")).unwrap();
        let process = Command::new(binary)
            .args(["--source", "cluster", "--replica", "measured", "--listen", "127.0.0.1:0"])
            .args(["--monitoring-address", "127.0.0.1:0", "--kubeconfig"])
            .arg(server.kubeconfig())
            .arg("--ca-dir")
            .arg(path("ca"))
            .arg("--node-tokens")
            .arg(path("tokens"))
            .arg("--run-dir")
            .arg(path("run"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, run: path("run") }
    }

    /// Waits until discovery is in sync.
    async fn ready(&self) {
        let ask = async || -> std::io::Result<String> {
            let mut socket = UnixStream::connect(self.run.join("admin.sock")).await?;
            socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let ready = async {
            loop {
                again.tick().await;
                if ask().await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, ready).await.expect("ready in time");
    }

    /// Resident memory now and at most, in MiB, and seconds of CPU.
    fn usage(&self) -> String {
        let proc = PathBuf::from("/proc").join(self.process.id().to_string());
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let mib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
        let seconds = (ticks(11) + ticks(12)) as f64 / 100.0;
        format!("{} MiB resident, {} MiB at most, {seconds:.1} s of CPU", mib("VmRSS:"), mib("VmHWM:"))
    }

    /// Port of discovery, as the log says it.
    fn port(&self) -> u16 {
        let log = std::fs::read_to_string(self.run.with_file_name("control.log")).unwrap();
        let line = log.lines().find(|line| line.contains("control plane serves")).unwrap();
        let port = line.split("127.0.0.1:").nth(1).unwrap();
        port.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    async fn end(mut self) {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        let ended = tokio::task::spawn_blocking(move || self.process.wait().unwrap());
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it ends").unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of some minutes"]
async fn twenty_thousand_pods_on_a_thousand_nodes() {
    let directory = tempfile::tempdir().unwrap();
    support::write_tokens(&directory.path().join("tokens"));
    let mut server = ApiServerProcess::start(directory.path()).await;
    let pods = std::env::var("STRAKE_SCALE_PODS").map_or(20_000, |pods| pods.parse().unwrap());
    let mesh = Mesh::new(pods);
    let began = Instant::now();
    mesh.create(&server.objects()).await;
    println!("{mesh}, made in {:.0?}", began.elapsed());

    let (control, began) = (Control::start(directory.path(), &server), Instant::now());
    control.ready().await;
    println!("start: ready after {:.1?}; {}", began.elapsed(), control.usage());

    let began = Instant::now();
    let mut proxy = Proxy::connect(control.port(), directory.path()).await;
    let bytes = proxy.hear_all(&mesh).await;
    println!(
        "first push: {:.1} MiB in {:.1?}; {}",
        bytes as f64 / f64::from(1 << 20),
        began.elapsed(),
        control.usage()
    );

    let mut times = Vec::new();
    for change in 0..CHANGES {
        let began = Instant::now();
        let name = mesh.change_one(&server.objects(), change).await;
        let answered = began.elapsed();
        proxy.hear(&name).await;
        times.push((began.elapsed(), answered));
    }
    times.sort();
    let (median, worst) = (times[CHANGES / 2], times[CHANGES - 1]);
    println!(
        "one change: on the wire {median:.1?} after the request (median; answer of the API server second), {worst:.1?} at most"
    );

    let held = proxy.held().clone();
    let began = Instant::now();
    control.end().await;
    println!("end: {:.1?}", began.elapsed());
    let (control, began) = (Control::start(directory.path(), &server), Instant::now());
    control.ready().await;
    let ready = began.elapsed();
    let mut proxy = Proxy::connect(control.port(), directory.path()).await;
    let sent = proxy.resume(held).await;
    println!("restart: ready after {ready:.1?}, {sent} resources sent again; {}", control.usage());
    assert_eq!(sent, 0, "a proxy that holds everything gets nothing");

    let began = Instant::now();
    server.restart().await;
    let back = began.elapsed();
    let name = mesh.change_one(&server.objects(), CHANGES).await;
    proxy.hear(&name).await;
    println!(
        "API server restarted: answers after {back:.1?}, the next change on the wire after {:.1?}; {}",
        began.elapsed(),
        control.usage()
    );
}
