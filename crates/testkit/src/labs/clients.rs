//! Commands and clients in the pods of a test's lab.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::Output;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};

use super::TestLab;
use crate::{app::load::ANSWERED, prerequisites};

/// A client of the test application that keeps running (`loop`, `hold`).
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

    /// Waits until a request of a `loop` was answered: what a test does next happens under traffic.
    ///
    /// # Panics
    /// When none is answered in time.
    pub async fn answered(mut self) -> Self {
        let line = self.line().await;
        assert_eq!(line, ANSWERED, "a request is answered");
        self
    }

    /// Its report once it ends by itself.
    ///
    /// # Panics
    /// When it does not end, or prints no report.
    pub async fn ended(mut self) -> Value {
        let mut line = self.line().await;
        if line == ANSWERED {
            line = self.line().await;
        }
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }

    /// Stops it; its report.
    ///
    /// # Panics
    /// When it prints no report.
    pub async fn stop(mut self) -> Value {
        // The client ends when its input does, and prints its report then.
        self.process.stdin = None;
        self.ended().await
    }
}

impl TestLab {
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

    /// Starts the test application's client in a pod; it runs until its input ends.
    ///
    /// # Panics
    /// When it cannot be started or does not begin.
    pub async fn load(&self, pod: &str, args: &[&str]) -> Load {
        self.started(pod, &[&["client"], args].concat()).await
    }

    /// Starts a misbehaving client in a pod (`strake-testapp flood`); it runs until its input ends.
    ///
    /// # Panics
    /// When it cannot be started or does not begin.
    pub async fn flood(&self, pod: &str, args: &[&str]) -> Load {
        self.started(pod, &[&["flood"], args].concat()).await
    }

    async fn started(&self, pod: &str, args: &[&str]) -> Load {
        let argv = self.testapp_argv(args);
        let mut process = self.lab.spawn(pod, &argv).await.unwrap_or_else(|err| panic!("{args:?} in {pod}: {err}"));
        // `Process` has to keep some file in the place of the one that is read here.
        let nothing = tokio::fs::File::open("/dev/null").await.expect("/dev/null");
        let lines = BufReader::new(std::mem::replace(&mut process.stdout, nothing)).lines();
        let mut load = Load { process, lines };
        let first = load.line().await;
        assert_eq!(first, "started", "{args:?} in {pod}; ztunnels:\n{}", self.ztunnel_tails());
        load
    }

    /// A GET from a node, from the cgroup of its prober: what a kubelet's probe is. The body of the answer.
    ///
    /// # Errors
    /// When it is not answered with success.
    pub async fn probe(&self, node: &str, url: &str) -> Result<String> {
        let cgroup = self.lab.cgroups().root().join(node).join("kubelet/cgroup.procs");
        let script =
            // 0 stands for the writing process itself; `exec` keeps it, so that curl is in the cgroup from its first
            // socket on.
            format!("echo 0 > {} && exec curl --silent --show-error --fail --globoff -m 5 {url}", cgroup.display());
        let output = self.lab.exec_on_node(node, &["sh", "-c", &script]).await?;
        if output.code != 0 {
            bail!("{url} from {node}: {}", output.error_text());
        }
        Ok(output.text())
    }
}
