//! Output of agents and ztunnels of a test's lab: reports, configuration, metrics, logs.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::output::line_with;
use serde_json::Value;

use super::{TAKES_EFFECT, TestLab};
use crate::assert::{eventually, within};

/// From an event to its line in the log, which a thread of its own writes.
const LOGGED: Duration = Duration::from_secs(2);

/// Lines of a log that a test shows when it misses one, latest first.
const SHOWN_LINES: usize = 30;

impl TestLab {
    /// A pod as `strake get pods` reports it.
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
        for pod in pods {
            let node = self.pod(pod).await.node;
            // Last: a certificate is asked for when discovery has told the ztunnel of the pod.
            let what = format!("the ztunnel of {node} can prove to be {pod}");
            eventually(&what, TAKES_EFFECT, async || self.certified(&node, pod).await).await;
        }
    }

    /// Fails unless the ztunnel of a pod's node holds a certificate for it. Without one, a connection is refused while the
    /// next try for it is due.
    async fn certified(&self, node: &str, pod: &str) -> Result<()> {
        let dump = self.config_dump(node).await?;
        let (namespace, name) = lab::split_pod(pod);
        let is = |of: &Value| of["namespace"] == namespace && of["name"] == name;
        let workload = dump["workloads"].as_array().and_then(|all| all.iter().find(|w| is(w)));
        let account = workload.and_then(|w| w["serviceAccount"].as_str()).context("no service account")?;
        let identity = format!("/ns/{namespace}/sa/{account}");
        let held = dump["certificates"].as_array().context("no certificates in config_dump")?;
        let ours = held.iter().find(|c| c["identity"].as_str().is_some_and(|id| id.ends_with(&identity)));
        match ours.map(|c| &c["state"]) {
            Some(state) if state == "Available" => Ok(()),
            state => bail!("{identity} is {state:?}"),
        }
    }

    async fn config_dump(&self, node: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.admin(node, "http://localhost:15000/config_dump").await?)?)
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

    /// Fails unless a node's ztunnel knows these pods by a protocol, `HBONE` or `TCP`, at this moment.
    ///
    /// # Errors
    /// What it knows instead.
    pub async fn knows(&self, node: &str, pods: &[&str], protocol: &str) -> Result<()> {
        let dump = self.config_dump(node).await?;
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
            // Packets that vanish look like a refusal to a client that only counts failures.
            if ["TimedOut", "WouldBlock"].contains(&kind) {
                bail!("lost, not refused: {report}");
            }
            let address = std::net::SocketAddr::new(self.ip(server, v6).await.parse()?, 8080).to_string();
            let wanted = [format!("={address} "), denied.clone()];
            let named = within(LOGGED, async || {
                let log = self.ztunnel_log(&node);
                let line = line_with(log.get(since..).unwrap_or_default(), &wanted.each_ref().map(String::as_str));
                line.map(drop).with_context(|| format!("{node}'s ztunnel names no {denied} for {address}: {report}"))
            });
            named.await?;
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

    /// Waits until a node's ztunnel has printed a line with all of `parts`.
    ///
    /// # Panics
    /// When it has not in time, with the end of what it printed.
    pub async fn says(&self, node: &str, parts: &[&str]) -> String {
        eventually(&format!("a line of {node}'s ztunnel with {parts:?}"), TAKES_EFFECT, async || {
            let log = self.ztunnel_log(node);
            line_with(&log, parts).map(str::to_owned).ok_or_else(|| tail(&log))
        })
        .await
    }

    /// The end of what each of the lab's two ztunnels has printed, newest first: why something failed.
    #[must_use]
    pub fn ztunnel_tails(&self) -> String {
        ["node-1", "node-2"].map(|node| tail(&self.ztunnel_log(node))).join("\n--\n")
    }

    /// Log of a node's ztunnel since the lab began.
    #[must_use]
    pub fn ztunnel_log(&self, node: &str) -> String {
        self.log(&format!("istio-system/ztunnel-{node}"), "ztunnel")
    }
}

fn tail(log: &str) -> String {
    log.lines().rev().take(SHOWN_LINES).collect::<Vec<_>>().join("\n")
}
