//! Shared parts of the steps: the lab, the pods' names, calls, captures, and waiting with a deadline.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use capture::{Audit, Frame};
use lab::{Lab, Output, output::line_with};
use tokio::sync::Mutex;

use super::report::{Evidence, Report};
use crate::{
    get::pods::{self, Row},
    intent::Intent,
    target::Target,
};

/// The client, on node-1.
pub(crate) const CART: &str = "shop/cart";
/// The server, on node-2, behind the Service `db`.
pub(crate) const DB: &str = "shop/db";
/// The stranger, on node-1.
pub(crate) const MALLORY: &str = "intruder/mallory";
/// Both nodes.
pub(crate) const NODES: [&str; 2] = ["node-1", "node-2"];
/// Longest time until a change shows everywhere.
pub(crate) const TAKES_EFFECT: Duration = Duration::from_secs(10);
/// Longest time that a refused call may take, in seconds: beyond it, it was not refused but lost.
const REFUSED_WITHIN: u32 = 3;
/// Exit code of `curl` at its timeout.
const CURL_TIMED_OUT: i32 = 28;
/// From a refusal to its line in the log.
const LOGGED_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two looks at something that should change.
const POLL: Duration = Duration::from_millis(20);

/// The demo while it runs.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) lab: Lab,
    /// Read by each look at the pods.
    intent: Mutex<Intent>,
    pub(crate) manifests: PathBuf,
    pub(crate) report: Report,
    /// Part of every request's path: found on the wire when that is not encrypted.
    pub(crate) marker: String,
}

/// Address family, and the option with which `curl` uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    pub(crate) fn of<'a>(self, mut ips: impl Iterator<Item = &'a IpAddr>) -> Result<IpAddr> {
        ips.find(|ip| ip.is_ipv6() == (self == Self::V6))
            .copied()
            .with_context(|| format!("no {} address", self.name()))
    }
}

/// An address as it stands in a URL.
pub(crate) fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Looks until `look` succeeds; its last error after the deadline.
pub(crate) async fn eventually<T>(deadline: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let mut tick = tokio::time::interval(POLL);
    loop {
        tick.tick().await;
        match look().await {
            Err(err) if begun.elapsed() > deadline => return Err(err.context(format!("not within {deadline:?}"))),
            Err(_) => {}
            done => return done,
        }
    }
}

impl Story {
    pub(crate) fn new(lab: Lab) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Different in each run, so that nothing on the machine's wires can have it by chance.
        let marker = format!("card-4111-{:08x}-{:08x}", now.subsec_nanos(), process::id());
        let intent = Mutex::new(Intent::of(&Target::of(&lab)));
        Self { manifests: lab.run_dir().manifests(), lab, intent, report: Report::new(), marker }
    }

    /// Prints a command that a user can run as it stands.
    pub(crate) fn command(&self, arguments: &str) {
        self.report.say(&format!("$ strake {arguments}"));
    }

    /// The path of every request: the payload that should not be readable.
    pub(crate) fn path(&self) -> String {
        format!("/order?{}", self.marker)
    }

    /// One request with `curl` on a new connection; the body of its answer.
    pub(crate) async fn call(&self, from: &str, family: Family, host: &str, seconds: u32) -> Result<String> {
        let output = self.curl(from, family, host, seconds).await?;
        ensure!(output.code == 0, "{from} -> {host} ({}): {}", family.name(), output.error_text());
        let body = output.text();
        ensure!(body.contains(&self.marker), "{from} -> {host}: an answer without the order: {body}");
        Ok(body)
    }

    async fn curl(&self, from: &str, family: Family, host: &str, seconds: u32) -> Result<Output> {
        let url = format!("http://{host}{}", self.path());
        let seconds = seconds.to_string();
        let argv =
            ["curl", "--silent", "--show-error", "--fail", family.flag(), "--max-time", &seconds, "--globoff", &url];
        Ok(self.lab.exec(from, &argv).await?)
    }

    /// A call over each family that is refused: not lost, and the log of db's ztunnel names `policy` for it.
    pub(crate) async fn refused(&self, from: &str, host: &str, policy: &str) -> Result<Evidence> {
        let db = self.lab.pod(DB).await?.ips;
        let mut evidence = Vec::new();
        for family in Family::BOTH {
            // Only what is logged from here on counts: an earlier call may have been refused in the same way.
            let known = self.ztunnel_log("node-2").len();
            let output = self.curl(from, family, host, REFUSED_WITHIN).await?;
            let text = format!("{from} -> {host} ({}): {}", family.name(), output.error_text());
            ensure!(output.code != 0, "{text}: it was answered: {}", output.text());
            ensure!(output.code != CURL_TIMED_OUT, "{text}: lost, not refused");
            let denied = format!("explicitly denied by: {policy}\"");
            let client = format!("src.workload=\"{}\"", lab::split_pod(from).1);
            let server = format!("{} ", SocketAddr::new(family.of(db.iter())?, 8080));
            let named = eventually(LOGGED_WITHIN, async || {
                let log = self.ztunnel_log("node-2");
                let line = line_with(log.get(known..).unwrap_or_default(), &[&client, &server, &denied]);
                line.map(str::to_owned)
                    .with_context(|| format!("node-2's ztunnel logged no {denied} for {client} to {server}"))
            });
            evidence.push(text);
            let line = named.await?;
            evidence.push(line.split_once("error=").map_or(line.as_str(), |(_, error)| error).to_owned());
        }
        Ok(evidence)
    }

    /// `call` over both families, to a Service's name.
    pub(crate) async fn call_by_name(&self, from: &str, name: &str) -> Result<Vec<String>> {
        let mut bodies = Vec::new();
        for family in Family::BOTH {
            bodies.push(self.call(from, family, name, 10).await?);
        }
        Ok(bodies)
    }

    /// So many calls of cart to db, one after the other.
    pub(crate) async fn calls(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.call(CART, Family::V4, "db", 10).await?;
        }
        Ok(())
    }

    /// Captures a node's wire while `work` runs.
    pub(crate) async fn captured<T>(
        &self,
        node: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Vec<Frame>)> {
        let capture = self.lab.capture(node).await?;
        // The capture is ended before the result is looked at: also a call that failed must not leave it running.
        let result = work.await;
        let captured = capture.stop().await?;
        let frames = capture::read_pcap(&fs::read(&captured.file)?)?;
        let _ = fs::remove_file(&captured.file); // goes with the lab's directory otherwise
        Ok((result?, frames))
    }

    /// The pods' rows of `strake get pods -n shop`.
    pub(crate) async fn shop(&self) -> Result<Vec<Row>> {
        let rows = pods::list(&self.lab, &mut *self.intent.lock().await, |pod| pod.namespace == "shop").await?;
        if rows.is_empty() {
            bail!("the lab has no pods in shop");
        }
        Ok(rows)
    }

    /// Fails unless every pod of `shop` is in `state`, with all checks holding.
    pub(crate) async fn all_in_state(&self, state: &str) -> Result<Vec<Row>> {
        let rows = self.shop().await?;
        for row in &rows {
            ensure!(row.state == state, "{}/{} is {}: {}", row.namespace, row.name, row.state, row.reason);
            let failed = row.checks.iter().find(|check| !check.ok);
            ensure!(failed.is_none(), "{}/{}: {failed:?}", row.namespace, row.name);
        }
        Ok(rows)
    }

    /// Addresses of every application's pod: what the audit of a capture is about.
    pub(crate) async fn app_addresses(&self) -> Result<Vec<IpAddr>> {
        let pods = self.lab.pods().await?;
        let apps = pods.into_iter().filter(|pod| ["shop", "intruder"].contains(&pod.namespace.as_str()));
        Ok(apps.flat_map(|pod| pod.ips).collect())
    }

    /// A capture, seen as traffic between the applications' pods; and how often the marker is in it.
    pub(crate) async fn audit(&self, frames: &[Frame]) -> Result<(Audit, usize)> {
        let apps = self.app_addresses().await?;
        let bytes = || frames.iter().map(|frame| frame.bytes.as_slice());
        let audit = capture::audit(bytes(), contract::ports::HBONE, |ip| apps.contains(&ip));
        Ok((audit, capture::occurrences(bytes(), self.marker.as_bytes())))
    }

    /// The output of a node's ztunnel since the lab began.
    pub(crate) fn ztunnel_log(&self, node: &str) -> String {
        let file = self.lab.log(&ztunnel(node), "ztunnel");
        fs::read_to_string(file).unwrap_or_default()
    }

    /// Puts a manifest beside the others, or replaces it.
    pub(crate) fn apply(&self, file: &str, yaml: &str) -> Result<()> {
        let draft = self.manifests.join(format!(".{file}"));
        // Written beside it and renamed: the readers of the manifests never see half a file, and skip names that begin
        // with a dot.
        fs::write(&draft, yaml)?;
        Ok(fs::rename(&draft, self.manifests.join(file))?)
    }

    /// Takes a manifest away.
    pub(crate) fn delete(&self, file: &str) -> Result<()> {
        Ok(fs::remove_file(self.manifests.join(file))?)
    }
}

/// The pod of a node's ztunnel.
pub(crate) fn ztunnel(node: &str) -> String {
    format!("istio-system/ztunnel-{node}")
}

/// The pod of a node's agent.
pub(crate) fn agent(node: &str) -> String {
    format!("istio-system/strake-agent-{node}")
}
