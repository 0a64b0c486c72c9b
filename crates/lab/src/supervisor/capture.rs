//! Captures of a node's wire: a file in the lab's directory for each recording of its `eth0`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use capture::{Counts, Recording};
use runtime::sys::Netns;

use crate::{
    network::INTERFACE_INDEX,
    paths::{RunDir, short},
};

/// Numbers captures within a lab.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A capture in progress.
pub(crate) struct Capture {
    file: PathBuf,
    recording: Recording,
}

/// Starts a capture; frames that pass after this returns are in the file.
pub(crate) fn start(netns: &Netns, run: &RunDir, node: &str) -> io::Result<Capture> {
    fs::create_dir_all(run.captures())?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = run.captures().join(format!("{}-{number}.pcap", short(node)));
    let recording = capture::record(netns, INTERFACE_INDEX, &file)?;
    Ok(Capture { file, recording })
}

impl Capture {
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Ends the capture.
    pub(crate) async fn stop(self) -> io::Result<Counts> {
        self.recording.stop().await
    }
}
