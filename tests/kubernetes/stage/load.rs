//! Requests that a pod sends while something else happens: one after another, each over a new connection, or all over one.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Cluster, script};

/// A command in a container that ends once a file exists there.
#[derive(Debug)]
struct Background<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    /// As kubectl takes it, such as `deploy/cart`.
    pod: &'a str,
    end: &'static str,
    client: Child,
}

impl<'a> Background<'a> {
    fn start(
        cluster: &'a Cluster,
        (namespace, pod): (&'a str, &'a str),
        end: &'static str,
        command: &[&str],
    ) -> Result<Self> {
        let client = Command::new(script())
            .args(["--name", cluster.name(), "kubectl", "--namespace", namespace, "exec", pod, "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        Ok(Self { cluster, namespace, pod, end, client })
    }

    /// Ends it; standard output and error, and whether it succeeded.
    fn stop(mut self) -> Result<(String, String, bool)> {
        let touch = ["--namespace", self.namespace, "exec", self.pod, "--", "touch", self.end];
        self.cluster.kubectl(&touch)?;
        let (mut printed, mut errors) = (String::new(), String::new());
        self.client.stdout.take().context("no output")?.read_to_string(&mut printed)?;
        self.client.stderr.take().context("no output")?.read_to_string(&mut errors)?;
        let status = self.client.wait()?;
        if !status.success() {
            // One that has ended by itself has not taken the file away.
            let remove = ["--namespace", self.namespace, "exec", self.pod, "--", "rm", "-f", self.end];
            self.cluster.kubectl(&remove)?;
        }
        Ok((printed, errors, status.success()))
    }
}

/// A pod that requests a URL again and again, each time over a new connection.
#[derive(Debug)]
pub(crate) struct Load<'a>(Background<'a>);

/// Requests of a load.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) answered: u64,
    /// Errors, one a line.
    pub(crate) failed: String,
}

impl<'a> Load<'a> {
    /// Starts requests of a pod, named as kubectl takes it.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn start(cluster: &'a Cluster, namespace: &'a str, pod: &'a str, url: &str) -> Result<Self> {
        const END: &str = "/tmp/end";
        let requests = format!(
            "answered=0; while [ ! -e {END} ]; do if app get {url} >/dev/null; then answered=$((answered+1)); fi; done; \
             rm {END}; echo $answered"
        );
        Background::start(cluster, (namespace, pod), END, &["sh", "-c", &requests]).map(Self)
    }

    /// Ends it after the request that is under way.
    ///
    /// # Errors
    /// When the client does not end well.
    pub(crate) fn stop(self) -> Result<Requests> {
        let (counted, failed, succeeded) = self.0.stop()?;
        ensure!(succeeded, "the client failed: {failed}");
        Ok(Requests { answered: counted.trim().parse().context(counted)?, failed })
    }
}

/// A connection that stays, with a request every tenth of a second.
#[derive(Debug)]
pub(crate) struct Held<'a>(Background<'a>);

impl<'a> Held<'a> {
    /// Opens the connection from a pod, named as kubectl takes it.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn start(cluster: &'a Cluster, namespace: &'a str, pod: &'a str, url: &str) -> Result<Self> {
        const END: &str = "/tmp/end-held";
        Background::start(cluster, (namespace, pod), END, &["app", "hold", url, END]).map(Self)
    }

    /// Ends it; the number of its requests, or how the connection ended before.
    ///
    /// # Errors
    /// When the client cannot be asked.
    pub(crate) fn stop(self) -> Result<Result<u64>> {
        let (counted, failed, succeeded) = self.0.stop()?;
        Ok(if succeeded {
            counted.trim().parse().context(counted)
        } else {
            Err(anyhow::anyhow!(failed.trim().to_owned()))
        })
    }
}
