//! Frames on the wire between the nodes of a test's lab.

use std::fs;

use capture::{Audit, Frame};

use super::TestLab;

impl TestLab {
    /// Looks through a capture at the traffic among these pods.
    ///
    /// # Panics
    /// When one of them is not there.
    pub async fn audit(&self, frames: &[Frame], pods: &[&str]) -> Audit {
        let mut ips = Vec::new();
        for pod in pods {
            ips.extend(self.pod(pod).await.ips);
        }
        capture::audit(frames.iter().map(|frame| frame.bytes.as_slice()), contract::ports::HBONE, |ip| {
            ips.contains(&ip)
        })
    }

    /// The frames on a node's wire while `work` runs.
    ///
    /// # Panics
    /// When the capture fails.
    pub async fn captured<T>(&self, node: &str, work: impl Future<Output = T>) -> (T, Vec<Frame>) {
        let recording = self.lab.capture(node).await.expect("a capture starts");
        let result = work.await;
        let captured = recording.stop().await.expect("a capture ends");
        let file = fs::read(&captured.file).expect("the capture is readable");
        // A file that stays is below the build directory.
        let _ = fs::remove_file(&captured.file);
        (result, capture::read_pcap(&file).expect("a pcap file"))
    }
}
