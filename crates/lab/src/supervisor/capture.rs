//! Captures of a node's wire: every frame of its `eth0` into a pcap file with nanosecond timestamps. What frames mean is
//! in `wire`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use runtime::sys::{Netns, packet::packet_socket};
use socket2::Socket;
use tokio::{io::unix::AsyncFd, sync::oneshot, task::JoinHandle};

use crate::{
    network::INTERFACE_INDEX,
    paths::{RunDir, short},
};

/// pcap with nanoseconds, in this machine's byte order.
const MAGIC: u32 = 0xa1b2_3c4d;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// Longest frame that is kept whole: a segment before it is cut into packets.
const SNAPSHOT_BYTES: usize = 1 << 17;

/// Frames that wait to be written, in bytes.
const BUFFER_BYTES: usize = 32 << 20;

/// How long the wire must be silent for a capture to end: what was sent before the end is in the file.
const SILENCE: Duration = Duration::from_millis(20);

/// A wire that never falls silent is cut off this long after the end.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Numbers captures within a lab.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A capture that runs.
pub(crate) struct Capture {
    file: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<(u64, u64)>>,
}

/// Begins to capture; what passes after this returns is in the file.
pub(crate) fn start(netns: &Netns, run: &RunDir, node: &str) -> io::Result<Capture> {
    let socket = netns.run(|| packet_socket(INTERFACE_INDEX))?;
    socket.set_nonblocking(true)?;
    if let Err(err) = runtime::sys::packet::set_receive_buffer(&socket, BUFFER_BYTES) {
        tracing::warn!(%err, "a capture has the usual buffer only");
    }
    fs::create_dir_all(run.captures())?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = run.captures().join(format!("{}-{number}.pcap", short(node)));
    let mut output = BufWriter::new(File::create(&file)?);
    write_header(&mut output)?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(record(runtime::sys::packet::watched(socket)?, output, stopped));
    Ok(Capture { file, stop, task })
}

impl Capture {
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Ends it: packets in the file, and packets that were lost.
    pub(crate) async fn stop(self) -> io::Result<(u64, u64)> {
        // The task may have failed already, which it says itself.
        let _ = self.stop.send(());
        self.task.await.map_err(io::Error::other)?
    }
}

async fn record(
    socket: AsyncFd<Socket>,
    mut output: BufWriter<File>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<(u64, u64)> {
    let mut frame = vec![0; SNAPSHOT_BYTES];
    let mut packets = 0;
    let mut end = None;
    loop {
        let readable = async {
            match end {
                Some(end) if Instant::now() > end => None,
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
                        write_packet(&mut output, SystemTime::now(), &frame[..length?])?;
                        packets += 1;
                    }
                    Err(_would_block) => {}
                }
            }
        }
    }
    output.flush()?;
    Ok((packets, runtime::sys::packet::dropped(socket.get_ref())?.into()))
}

fn write_header(output: &mut impl io::Write) -> io::Result<()> {
    let snapshot = u32::try_from(SNAPSHOT_BYTES).map_err(io::Error::other)?;
    output.write_all(&MAGIC.to_ne_bytes())?;
    output.write_all(&2u16.to_ne_bytes())?;
    output.write_all(&4u16.to_ne_bytes())?;
    for field in [0, 0, snapshot, ETHERNET] {
        output.write_all(&u32::to_ne_bytes(field))?;
    }
    Ok(())
}

fn write_packet(output: &mut impl io::Write, at: SystemTime, frame: &[u8]) -> io::Result<()> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
    for field in [seconds, at.subsec_nanos(), length, length] {
        output.write_all(&field.to_ne_bytes())?;
    }
    output.write_all(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_tcpdump_reads() {
        let mut file = Vec::new();

        write_header(&mut file).unwrap();
        write_packet(&mut file, UNIX_EPOCH + Duration::new(3, 4), b"frame").unwrap();

        assert_eq!(file.len(), 24 + 16 + 5);
        assert_eq!(file[..4], MAGIC.to_ne_bytes());
        assert_eq!(file[24..28], 3u32.to_ne_bytes());
        assert_eq!(file[32..36], 5u32.to_ne_bytes());
    }
}
