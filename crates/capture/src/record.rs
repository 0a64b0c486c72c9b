//! Recordings of an interface: every frame of it into a pcap file with nanosecond timestamps.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write as _},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use runtime::sys::{Netns, packet::packet_socket};
use socket2::Socket;
use tokio::{io::unix::AsyncFd, sync::oneshot, task::JoinHandle};

use crate::pcap;

/// Frames that wait to be written, in bytes.
const BUFFER_BYTES: usize = 32 << 20;

/// Silence of the wire that ends a recording: frames that were sent before the end are in the file.
const SILENCE: Duration = Duration::from_millis(20);

/// Time after which a recording of a wire that never falls silent ends.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// A recording in progress.
pub struct Recording {
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<Counts>>,
}

/// Packets of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Packets in the file.
    pub recorded: u64,
    /// Packets that passed while the buffer was full.
    pub lost: u64,
}

/// Starts to record an interface of a network namespace into a new file. Frames that pass after this returns are in the file.
///
/// # Errors
/// When the packet socket cannot be opened (it needs `CAP_NET_RAW`) or the file cannot be created.
pub fn record(netns: &Netns, interface_index: u32, file: &Path) -> io::Result<Recording> {
    // The socket is bound before this function returns, so the kernel keeps frames from here on even if the task has
    // not run yet.
    let socket = netns.run(|| packet_socket(interface_index))?;
    socket.set_nonblocking(true)?;
    if let Err(err) = runtime::sys::packet::set_receive_buffer(&socket, BUFFER_BYTES) {
        tracing::warn!(%err, "failed to enlarge the capture's receive buffer; packets may be lost");
    }
    let mut output = BufWriter::new(File::create(file)?);
    pcap::write_header(&mut output)?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(runtime::sys::packet::watched(socket)?, output, stopped));
    Ok(Recording { stop, task })
}

impl Recording {
    /// Ends the recording once the wire has fallen silent.
    ///
    /// # Errors
    /// When the socket or the file has failed since the start.
    pub async fn stop(self) -> io::Result<Counts> {
        // The task may have failed already; then it returns the error.
        let _ = self.stop.send(());
        self.task.await.map_err(io::Error::other)?
    }
}

async fn run(
    socket: AsyncFd<Socket>,
    mut output: BufWriter<File>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<Counts> {
    let mut frame = vec![0; pcap::SNAPSHOT_BYTES];
    let mut recorded = 0;
    let mut end = None;
    loop {
        let readable = async {
            match end {
                Some(end) if Instant::now() > end => None,
                // After the end was called for, frames may still be on their way through the kernel. The recording ends
                // when none has come for a while, or at the deadline on a busy wire.
                Some(_) => tokio::time::timeout(SILENCE, socket.readable()).await.ok(),
                None => Some(socket.readable().await),
            }
        };
        tokio::select! {
            // Both are safe to drop: they take nothing from the socket.
            _ = &mut stopped, if end.is_none() => end = Some(Instant::now() + END_DEADLINE),
            ready = readable => {
                let Some(ready) = ready else { break };
                // The guard is told when the socket is empty.
                match ready?.try_io(|socket| socket.get_ref().read(&mut frame)) {
                    Ok(length) => {
                        pcap::write_packet(&mut output, SystemTime::now(), &frame[..length?])?;
                        recorded += 1;
                    }
                    Err(_would_block) => {}
                }
            }
        }
    }
    output.flush()?;
    Ok(Counts { recorded, lost: runtime::sys::packet::dropped(socket.get_ref())?.into() })
}
