//! What agents and ztunnels of a test's lab say: reports, configuration, metrics, logs.

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

    /// Fails unless a node's ztunnel knows these pods by a protocol, `HBONE` or `TCP`, at this moment.
    ///
    /// # Errors
    /// What it knows instead.
    pub async fn knows(&self, node: &str, pods: &[&str], protocol: &str) -> Result<()> {
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
            let tail = || log.lines().rev().take(SHOWN_LINES).collect::<Vec<_>>().join("\n");
            line_with(&log, parts).map(str::to_owned).ok_or_else(tail)
        })
        .await
    }

    /// What a node's ztunnel has printed since the lab began.
    #[must_use]
    pub fn ztunnel_log(&self, node: &str) -> String {
        self.log(&format!("istio-system/ztunnel-{node}"), "ztunnel")
    }
}
