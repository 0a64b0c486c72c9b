//! One direction of a relay, from a socket or a stream to the other. `super` decides what its end means for the whole.

use super::counts::ByteCounter;
use super::{CONNECT_ERROR, STALL, Scratch};
use bytes::{Buf, Bytes};
use hbone::{Reason, RecvHalf, SendHalf, StreamError};
use runtime::sys::socket;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Pieces written to a socket in one call.
const PIECES: usize = 32;
/// Pause between keepalive probes of a peer that has ended its half. Must stay below conntrack's timeout of a half-closed
/// connection, 60 s on Linux (`nf_conntrack_tcp_timeout_close_wait`).
const HALF_CLOSE_PROBE_INTERVAL: Duration = Duration::from_secs(20);
/// Number of such probes that may stay without an answer.
const HALF_CLOSE_PROBES: u32 = 3;
/// Bytes taken from a stream before they are written.
const GATHER_BYTES: usize = 256 << 10;

/// Failure of one direction.
#[derive(Debug)]
pub(super) enum Broken {
    /// Alone: the peer of a stream takes no more of it.
    Direction(io::Error),
    /// The stream it writes to is lost. What its peer has sent before may still be there to read.
    Stream(io::Error),
    /// The socket it writes to is gone. What that one's application has sent before may still be there to read.
    Writing(io::Error),
    /// With the connection, and so with the other one.
    Whole(io::Error),
}

pub(super) type Ended = Result<(), Broken>;

impl Broken {
    /// A sender's view of the stream.
    fn sending(e: StreamError) -> Self {
        match e {
            StreamError::BrokenPipe => Self::Direction(e.into()),
            StreamError::Reset(_) | StreamError::Tunnel(_) => Self::Stream(lost_stream(e)),
        }
    }

    /// A receiver's view: whatever is not an end is a loss.
    fn receiving(e: StreamError) -> Self {
        Self::Whole(lost_stream(e))
    }
}

fn lost_stream(e: StreamError) -> io::Error {
    match e {
        // The other proxy's socket was reset, and so will ours be: an ordinary end.
        StreamError::Reset(CONNECT_ERROR | Reason::Cancel) => reset(),
        StreamError::BrokenPipe | StreamError::Reset(_) | StreamError::Tunnel(_) => e.into(),
    }
}

/// State of a socket that both directions see.
#[derive(Debug, Default)]
pub(super) struct SocketState {
    /// A write has failed: the end that the reader sees then is not an orderly one.
    gone: Cell<bool>,
    /// Bytes written to the socket.
    written: Cell<u64>,
}

impl SocketState {
    /// Bytes that the kernel has taken for the socket so far.
    pub(super) const fn written(&self) -> u64 {
        self.written.get()
    }
}

/// The half of an application's socket that is read.
pub(super) struct Reader<'a> {
    half: ReadHalf<'a>,
    state: &'a SocketState,
}

/// The half that is written.
pub(super) struct Writer<'a> {
    half: WriteHalf<'a>,
    state: &'a SocketState,
}

/// Both halves of a socket.
pub(super) fn split<'a>(socket: &'a mut TcpStream, state: &'a SocketState) -> (Reader<'a>, Writer<'a>) {
    let (read, write) = socket.split();
    (Reader { half: read, state }, Writer { half: write, state })
}

/// Set by a direction once all is sent, while it still watches for the loss of the connection.
pub(super) type Finished = Cell<bool>;

impl Reader<'_> {
    /// Reads the next bytes; empty at an orderly end.
    async fn read(&mut self, scratch: &Scratch) -> io::Result<Bytes> {
        let data = scratch.read(&mut self.half).await?;
        if data.is_empty() && self.state.gone.get() { Err(reset()) } else { Ok(data) }
    }

    /// Ready when the socket was reset. Dropping it loses nothing.
    async fn lost(&self) -> Broken {
        let mut error = pin!(self.half.ready(Interest::ERROR));
        poll_fn(|cx| if self.state.gone.get() { Poll::Ready(()) } else { error.as_mut().poll(cx).map(drop) }).await;
        Broken::Whole(reset())
    }

    /// Does `work`. Once the socket is reset, bytes that it sent before are still passed on, as long as they are taken:
    /// `work` has [`STALL`] then.
    async fn unless_lost<T>(&self, work: impl Future<Output = T>) -> Result<T, Broken> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = work.as_mut() => Ok(done),
            // Boxed, as it is rare.
            lost = self.lost() => Box::pin(timeout(STALL, work)).await.map_err(|_| lost),
        }
    }

    /// Turns on keepalive probes once the peer has ended its half. TCP does not tell whether it has closed the other half
    /// too; without probes, bytes that nobody reads would keep both sockets open without end.
    fn probe_half_closed(&self) {
        // Fails only on a socket that is gone.
        let interval = HALF_CLOSE_PROBE_INTERVAL;
        let _ = socket::set_keepalive(self.half.as_ref(), interval, interval, HALF_CLOSE_PROBES);
    }
}

impl Writer<'_> {
    async fn write(&mut self, pieces: &mut VecDeque<Bytes>) -> Ended {
        let result = write_all(&mut self.half, pieces, &self.state.written).await;
        self.ended(result)
    }

    /// Closes the write half; a peer that is gone already is fine.
    async fn shutdown(&mut self) -> Ended {
        match self.half.shutdown().await {
            Err(e) if matches!(e.kind(), ErrorKind::NotConnected | ErrorKind::UnexpectedEof) => Ok(()),
            other => self.ended(other),
        }
    }

    /// TCP has no way to refuse one direction: a socket that cannot be written is gone.
    fn ended(&self, result: io::Result<()>) -> Ended {
        self.state.gone.set(self.state.gone.get() || result.is_err());
        result.map_err(Broken::Writing)
    }
}

fn reset() -> io::Error {
    ErrorKind::ConnectionReset.into()
}

/// Returns the reason for which a stream takes no more: a reset, if there was one, or `otherwise`. Does not wait.
async fn reason(of: &mut SendHalf, otherwise: StreamError) -> StreamError {
    // `send` fails in the same way after an orderly end and after a reset. Which of them it was is in the stream's
    // state already, so one look is enough.
    let reset = poll_fn(|cx| match of.poll_closed(cx) {
        Poll::Ready(e) => Poll::Ready(Some(e)),
        Poll::Pending => Poll::Ready(None),
    });
    reset.await.unwrap_or(otherwise)
}

/// Ends only with the connection: what is finished may still be lost.
pub(super) async fn socket_to_stream(
    mut from: Reader<'_>,
    to: &mut SendHalf,
    scratch: &Scratch,
    counter: ByteCounter<'_>,
    finished: &Finished,
) -> Ended {
    loop {
        let read = tokio::select! {
            // A piece that is there goes first. Both may be dropped.
            biased;
            read = from.read(scratch) => read.map_err(Broken::Whole)?,
            lost = to.closed() => return Err(Broken::sending(lost)),
        };
        if read.is_empty() {
            break;
        }
        let n = read.len();
        // What a peer does not take is lost with the socket, as it is in a kernel's queue.
        if let Err(e) = from.unless_lost(to.send(read)).await? {
            return Err(Broken::sending(reason(to, e).await));
        }
        counter.add(n);
    }
    to.finish().map_err(Broken::sending)?;
    finished.set(true);
    from.probe_half_closed();
    tokio::select! {
        lost = to.closed() => Err(Broken::sending(lost)),
        lost = from.lost() => Err(lost),
    }
}

pub(super) async fn stream_to_socket(from: &mut RecvHalf, mut to: Writer<'_>, counter: ByteCounter<'_>) -> Ended {
    let mut pieces = VecDeque::new();
    while let Some(first) = from.data().await.map_err(Broken::receiving)? {
        pieces.push_back(first);
        // One system call for up to 32 frames, instead of one for each.
        let n = gather(from, &mut pieces);
        to.write(&mut pieces).await?;
        // Only now may the peer send as many again: a reader that does not read stops it at the stream's window.
        from.release(n);
        counter.add(n);
    }
    to.shutdown().await
}

/// Ends only with the connection: what is finished may still be lost.
pub(super) async fn socket_to_socket(
    mut from: Reader<'_>,
    mut to: Writer<'_>,
    scratch: &Scratch,
    counter: ByteCounter<'_>,
    finished: &Finished,
) -> Ended {
    let mut pieces = VecDeque::new();
    loop {
        let data = from.read(scratch).await.map_err(Broken::Whole)?;
        if data.is_empty() {
            break;
        }
        let n = data.len();
        pieces.push_back(data);
        from.unless_lost(to.write(&mut pieces)).await??;
        counter.add(n);
    }
    from.probe_half_closed();
    to.shutdown().await?;
    finished.set(true);
    Err(from.lost().await)
}

/// Takes what has arrived already; returns the bytes in `pieces`. An end is seen at the next call of `data`.
fn gather(from: &mut RecvHalf, pieces: &mut VecDeque<Bytes>) -> usize {
    let mut bytes = pieces.iter().map(Bytes::len).sum();
    while pieces.len() < PIECES && bytes < GATHER_BYTES {
        let Some(piece) = from.try_data() else { break };
        bytes += piece.len();
        pieces.push_back(piece);
    }
    bytes
}

async fn write_all<W: AsyncWrite + Unpin>(
    to: &mut W,
    pieces: &mut VecDeque<Bytes>,
    written: &Cell<u64>,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut n = poll_fn(|cx| {
            let to = Pin::new(&mut *to);
            // Most frames come alone: one piece needs no list of slices.
            if let [only] = pieces.make_contiguous() {
                return to.poll_write(cx, only);
            }
            let mut slices = [IoSlice::new(&[]); PIECES];
            for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
                *slice = IoSlice::new(piece);
            }
            to.poll_write_vectored(cx, &slices[..pieces.len().min(PIECES)])
        })
        .await?;
        if n == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        // Counted before the next wait: `linger` takes a growing number for a reader that still reads.
        written.set(written.get() + n as u64);
        while let Some(piece) = pieces.front_mut() {
            if n < piece.len() {
                piece.advance(n);
                break;
            }
            n -= piece.len();
            pieces.pop_front();
        }
    }
    Ok(())
}
