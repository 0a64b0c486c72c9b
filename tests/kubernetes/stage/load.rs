//! Requests that a pod sends one after another while something else happens.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Cluster, script};

/// File in the client's container that ends its load.
const END: &str = "/tmp/end";

/// A pod that requests a URL again and again, each time over a new connection.
#[derive(Debug)]
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    client: Child,
}

/// Requests of a load.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) answered: u64,
    /// Errors, one a line.
    pub(crate) failed: String,
}

impl<'a> Load<'a> {
    /// Starts requests of the pod `client-1`.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub(crate) fn start(cluster: &'a Cluster, namespace: &'a str, url: &str) -> Result<Self> {
        let requests = format!(
            "answered=0; while [ ! -e {END} ]; do if app get {url} >/dev/null; then answered=$((answered+1)); fi; done; \
             rm {END}; echo $answered"
        );
        let client = Command::new(script())
            .args(["--name", cluster.name(), "kubectl", "--namespace", namespace, "exec", "client-1", "--"])
            .args(["sh", "-c", &requests])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        Ok(Self { cluster, namespace, client })
    }

    /// Ends it after the request that is under way.
    ///
    /// # Errors
    /// When the client does not end well.
    pub(crate) fn stop(mut self) -> Result<Requests> {
        self.cluster.kubectl(&["--namespace", self.namespace, "exec", "client-1", "--", "touch", END])?;
        let (mut counted, mut failed) = (String::new(), String::new());
        self.client.stdout.take().context("no output")?.read_to_string(&mut counted)?;
        self.client.stderr.take().context("no output")?.read_to_string(&mut failed)?;
        let status = self.client.wait()?;
        ensure!(status.success(), "{status}: {failed}");
        Ok(Requests { answered: counted.trim().parse().context(counted)?, failed })
    }
}
