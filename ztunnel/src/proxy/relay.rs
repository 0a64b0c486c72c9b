//! Carries bytes between an application's socket and a stream, or between two sockets, until both
//! directions have ended. It has no idle timeout, and it reports nothing.
//!
//! Owns neither side: the caller closes them. Half-close is passed on both ways, and neither direction
//! is cancelled because the other ended or failed, except when the connection as a whole is lost (the tunnel, a
//! reset stream, a reset socket): then the other side is reset too, so that nobody takes the loss for an end.

use super::guarded::reset_on_close;
use bytes::{Buf, Bytes, BytesMut};
use hbone::{Reason, RecvHalf, SendHalf, Stream, StreamError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use telemetry::metrics::TrafficHandles;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Block that reads go to, bytes; at most what one read returns.
const BLOCK_BYTES: usize = 64 << 10;
/// What must be left of a block for another read, bytes.
const LEAST_ROOM_BYTES: usize = 16 << 10;
/// Reads up to this are copied, so that a slow small stream does not hold a whole block, bytes.
const COPY_BYTES: usize = BLOCK_BYTES / 8;
/// How a stream ends whose socket was reset (RFC 9113, 8.5: `CONNECT_ERROR`).
const CONNECT_ERROR: Reason = Reason::Other(0xa);
/// Pieces written to a socket in one call.
const PIECES: usize = 32;
/// Bytes taken from a stream before they are written.
const GATHER_BYTES: usize = 256 << 10;

/// Where reads of one worker go: idle connections own no buffer.
#[derive(Debug, Default)]
pub struct Scratch(RefCell<BytesMut>);

/// Bytes carried so far. The metrics hear of them now and then, and at the end.
#[derive(Debug)]
pub struct Counts {
    to_server: Cell<u64>,
    to_client: Cell<u64>,
    flushed: Cell<(u64, u64)>,
    flush_bytes: u64,
    traffic: Arc<TrafficHandles>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

impl Counts {
    /// Tells `traffic` about every `flush_bytes`.
    pub fn new(flush_bytes: u64, traffic: Arc<TrafficHandles>) -> Self {
        let zero = || Cell::new(0);
        Self { to_server: zero(), to_client: zero(), flushed: Cell::new((0, 0)), flush_bytes, traffic }
    }

    /// From the side that connected to the side that accepted, and back.
    pub fn totals(&self) -> (u64, u64) {
        (self.to_server.get(), self.to_client.get())
    }

    /// Tells the metrics what they have not heard yet.
    pub fn flush(&self) {
        let (now, before) = (self.totals(), self.flushed.get());
        if now == before {
            return;
        }
        self.flushed.set(now);
        self.traffic.bytes(now.0 - before.0, now.1 - before.1);
    }

    /// Bytes that the metrics have not heard of.
    pub fn unflushed(&self) -> u64 {
        let (now, before) = (self.totals(), self.flushed.get());
        now.0 + now.1 - before.0 - before.1
    }

    pub(super) fn add(&self, way: Way, n: usize) {
        let count = match way {
            Way::ToServer => &self.to_server,
            Way::ToClient => &self.to_client,
        };
        count.set(count.get() + n as u64);
        if self.unflushed() >= self.flush_bytes {
            self.flush();
        }
    }
}

/// How a relay failed. Resets and early ends are no failures.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// On the way from client to server.
    #[error("send: {0}")]
    Send(io::Error),
    /// On the way from server to client.
    #[error("receive: {0}")]
    Receive(io::Error),
}

impl Scratch {
    /// The next bytes of `from`; empty at its end.
    async fn read<R: AsyncRead + Unpin>(&self, from: &mut R) -> io::Result<Bytes> {
        poll_fn(|cx| {
            let block = &mut *self.0.borrow_mut();
            if block.capacity() < LEAST_ROOM_BYTES {
                *block = BytesMut::with_capacity(BLOCK_BYTES);
            }
            let n = ready!(pin!(from.read_buf(block)).poll(cx))?;
            if n > COPY_BYTES {
                return Poll::Ready(Ok(block.split_to(n).freeze()));
            }
            let data = Bytes::copy_from_slice(block);
            block.clear();
            Poll::Ready(Ok(data))
        })
        .await
    }
}

/// Is this only a connection that ended, though not politely?
pub fn is_ordinary(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(e.kind(), NotConnected | UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// How one direction failed.
#[derive(Debug)]
enum Broken {
    /// Alone.
    Direction(io::Error),
    /// With the connection, and so with the other one.
    Whole(io::Error),
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Direction(e)
    }
}

impl From<StreamError> for Broken {
    fn from(e: StreamError) -> Self {
        match e {
            StreamError::BrokenPipe => Self::Direction(e.into()),
            // The other proxy's socket was reset, and so will ours be: an ordinary end.
            StreamError::Reset(CONNECT_ERROR) => Self::Whole(io::ErrorKind::ConnectionReset.into()),
            StreamError::Reset(_) | StreamError::Tunnel(_) => Self::Whole(e.into()),
        }
    }
}

type Ended = Result<(), Broken>;

/// Waits for both directions, or for the loss of the stream; tells whether it was lost.
async fn both(up: impl Future<Output = Ended>, down: impl Future<Output = Ended>) -> (Result<(), RelayError>, bool) {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (mut sent, mut received) = (None, None);
    poll_fn(|cx| {
        if sent.is_none()
            && let Poll::Ready(end) = up.as_mut().poll(cx)
        {
            sent = Some(end);
        }
        let lost = |end: &Option<Ended>| matches!(end, Some(Err(Broken::Whole(_))));
        if received.is_none()
            && !lost(&sent)
            && let Poll::Ready(end) = down.as_mut().poll(cx)
        {
            received = Some(end);
        }
        let over = sent.is_some() && received.is_some() || lost(&sent) || lost(&received);
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let lost = [&sent, &received].iter().any(|end| matches!(end, Some(Err(Broken::Whole(_)))));
    (outcome(sent.unwrap_or(Ok(())), received.unwrap_or(Ok(()))), lost)
}

fn outcome(sent: Ended, received: Ended) -> Result<(), RelayError> {
    let failure = |end: Ended| match end {
        Err(Broken::Direction(e) | Broken::Whole(e)) if !is_ordinary(&e) => Some(e),
        Err(_) | Ok(()) => None,
    };
    match (failure(sent), failure(received)) {
        (Some(e), _) => Err(RelayError::Send(e)),
        (None, Some(e)) => Err(RelayError::Receive(e)),
        (None, None) => Ok(()),
    }
}

/// Client is the socket, server is the stream.
pub async fn outbound(
    app: &mut TcpStream,
    stream: Stream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    // Dropped before it has finished, the sending half ends as a failure.
    let (mut send, mut recv) = stream.split();
    let reset = Cell::new(false);
    let (mut app_read, mut app_write) = app.split();
    let up = socket_to_stream((&mut app_read, &reset), &mut send, scratch, (counts, Way::ToServer));
    let down = stream_to_socket(&mut recv, (&mut app_write, &reset), (counts, Way::ToClient));
    let (result, lost) = both(up, down).await;
    if lost {
        reset_on_close(app);
    }
    result
}

/// Client is the stream, server is the socket.
pub async fn inbound(
    stream: Stream,
    app: &mut TcpStream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    // Dropped before it has finished, the sending half ends as a failure.
    let (mut send, mut recv) = stream.split();
    let reset = Cell::new(false);
    let (mut app_read, mut app_write) = app.split();
    let up = stream_to_socket(&mut recv, (&mut app_write, &reset), (counts, Way::ToServer));
    let down = socket_to_stream((&mut app_read, &reset), &mut send, scratch, (counts, Way::ToClient));
    let (result, lost) = both(up, down).await;
    if lost {
        reset_on_close(app);
    }
    result
}

/// Client and server are sockets.
pub async fn plain(
    client: &mut TcpStream,
    server: &mut TcpStream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    let (mut client_read, mut client_write) = client.split();
    let (mut server_read, mut server_write) = server.split();
    let up = socket_to_socket(&mut client_read, &mut server_write, scratch, (counts, Way::ToServer));
    let down = socket_to_socket(&mut server_read, &mut client_write, scratch, (counts, Way::ToClient));
    let (result, lost) = both(up, down).await;
    if lost {
        reset_on_close(client);
        reset_on_close(server);
    }
    result
}

/// `from` comes with a note whether its other half has met a reset, after which reading ends as if in order.
async fn socket_to_stream<R: AsyncRead + Unpin>(
    from: (&mut R, &Cell<bool>),
    to: &mut SendHalf,
    scratch: &Scratch,
    count: (&Counts, Way),
) -> Ended {
    let failure = loop {
        let read = tokio::select! {
            // A piece that is there goes first. Both may be dropped.
            biased;
            read = scratch.read(from.0) => read,
            lost = to.closed() => return Err(lost.into()),
        };
        match read {
            Ok(data) if data.is_empty() && from.1.get() => break io::ErrorKind::ConnectionReset.into(),
            Ok(data) if data.is_empty() => return Ok(to.finish()?),
            Ok(data) => {
                let n = data.len();
                to.send(data).await?;
                count.0.add(count.1, n);
            }
            Err(e) => break e,
        }
    };
    // The tunnel gets its turn: what was read before the reset goes out as far as the peer takes it.
    tokio::task::yield_now().await;
    to.reset(CONNECT_ERROR);
    Err(Broken::Whole(failure))
}

async fn stream_to_socket<W: AsyncWrite + Unpin>(
    from: &mut RecvHalf,
    to: (&mut W, &Cell<bool>),
    count: (&Counts, Way),
) -> Ended {
    let (to, reset) = to;
    let mut pieces = VecDeque::new();
    while let Some(first) = from.data().await? {
        pieces.push_back(first);
        let n = gather(from, &mut pieces);
        if let Err(e) = write_all(to, &mut pieces).await {
            // What the application had said before may still be there to read.
            reset.set(e.kind() == io::ErrorKind::ConnectionReset);
            return Err(e.into());
        }
        from.release(n);
        count.0.add(count.1, n);
    }
    Ok(shutdown(to).await?)
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

async fn write_all<W: AsyncWrite + Unpin>(to: &mut W, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut n = poll_fn(|cx| {
            let to = Pin::new(&mut *to);
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
            return Err(io::ErrorKind::WriteZero.into());
        }
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

async fn socket_to_socket<R, W>(from: &mut R, to: &mut W, scratch: &Scratch, count: (&Counts, Way)) -> Ended
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        match scratch.read(from).await {
            Ok(data) if data.is_empty() => return Ok(shutdown(to).await?),
            Ok(data) => {
                to.write_all(&data).await?;
                count.0.add(count.1, data.len());
            }
            Err(e) => return Err(Broken::Whole(e)),
        }
    }
}

/// Closes the write half; a peer that is gone already is fine.
async fn shutdown<W: AsyncWrite + Unpin>(to: &mut W) -> io::Result<()> {
    match to.shutdown().await {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotConnected | io::ErrorKind::UnexpectedEof) => Ok(()),
        other => other,
    }
}
