//! A client that keeps calling from `cart` while the step changes the mesh.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Process;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    time::timeout,
};

use super::story::{CART, Story};

/// A client that does not speak in time will not speak.
const SPEAKS_WITHIN: Duration = Duration::from_secs(20);

/// The running client. It stops when its input ends.
#[derive(Debug)]
pub(crate) struct Load {
    process: Process,
    lines: Lines<BufReader<tokio::fs::File>>,
}

impl Load {
    /// Requests to db, each on a new connection.
    pub(crate) async fn requests(story: &Story, host: &str) -> Result<Self> {
        Self::start(story, "/apps/requests.py", host, "0.02").await
    }

    /// Requests to db on one connection.
    pub(crate) async fn live(story: &Story, host: &str) -> Result<Self> {
        Self::start(story, "/apps/live.py", host, "0.1").await
    }

    async fn start(story: &Story, script: &str, host: &str, pause: &str) -> Result<Self> {
        let argv = ["python3", script, host, &story.path(), pause];
        let mut process = story.lab.spawn(CART, &argv).await?;
        let stdout = std::mem::replace(&mut process.stdout, nothing().await?);
        let mut load = Self { process, lines: BufReader::new(stdout).lines() };
        // A client that has not begun would not notice what happens next.
        let first = load.line().await?;
        ensure!(first == "started", "{script} says {first:?}");
        Ok(load)
    }

    async fn line(&mut self) -> Result<String> {
        let line = timeout(SPEAKS_WITHIN, self.lines.next_line()).await.context("the client in cart is silent")??;
        line.context("the client in cart ended without a word")
    }

    /// Its report, once it ends by itself.
    pub(crate) async fn ended(mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.line().await?)?)
    }

    /// Stops it; its report.
    pub(crate) async fn stop(mut self) -> Result<Value> {
        self.process.stdin = None;
        self.ended().await
    }
}

/// Replacement of the output that somebody else reads.
async fn nothing() -> Result<tokio::fs::File> {
    Ok(tokio::fs::File::open("/dev/null").await?)
}

/// Fails when a request did.
pub(crate) fn no_failure(report: &Value) -> Result<Vec<String>> {
    let (ok, failed) = (&report["ok"], &report["failed"]);
    ensure!(*failed == 0, "{failed} requests failed, {ok} did not: {}", report["failures"]);
    // No failure among no requests would prove nothing.
    ensure!(report["ok"].as_u64() > Some(0), "no request was made");
    Ok(vec![format!("{} requests, each on a new connection, 0 failed", report["ok"])])
}
