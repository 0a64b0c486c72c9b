//! The wire between the nodes.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use capture::{Audit, audit};
use contract::ports::HBONE;
use runtime::sys::Netns;

use super::Cluster;

/// Frames that passed a node's interface to the other nodes.
#[derive(Debug)]
pub(crate) struct Wire {
    frames: Vec<Vec<u8>>,
}

impl Wire {
    /// Records the interface of a node while `work` runs.
    ///
    /// # Errors
    /// When the node does not run, or a packet was lost.
    pub(crate) fn of<T>(cluster: &Cluster, node: &str, work: impl FnOnce() -> T) -> Result<(T, Self)> {
        let pid = cluster.command(&["pid", node])?;
        let netns = Netns::open(Path::new(&format!("/proc/{pid}/ns/net")))?;
        let index = cluster.on(node, &["cat", "/sys/class/net/eth0/ifindex"])?.parse()?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("wire.pcap");
        // A second thread records while this one works.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (done, counts) = runtime.block_on(async {
            let recording = capture::record(&netns, index, &file)?;
            let done = tokio::task::block_in_place(work);
            anyhow::Ok((done, recording.stop().await?))
        })?;
        ensure!(counts.lost == 0, "{} packets were not recorded", counts.lost);
        let frames = capture::read_pcap(&std::fs::read(&file)?).context("the recording")?;
        Ok((done, Self { frames: frames.into_iter().map(|frame| frame.bytes).collect() }))
    }

    /// Payload between these addresses, inside and outside of tunnels.
    pub(crate) fn audit(&self, pods: &[IpAddr]) -> Audit {
        audit(self.frames.iter().map(Vec::as_slice), HBONE, |address| pods.contains(&address))
    }
}
