//! Carries bytes between an application's socket and a stream, or between two sockets, until both
//! directions have ended. It has no idle timeout, and it reports nothing.
//!
//! Owns neither side: the caller closes them. Half-close is passed on both ways, and neither direction
//! is cancelled because the other ended, or because the peer of a stream takes no more of it. The loss of the
//! connection (the tunnel, a reset stream, a reset socket) is passed on as a loss, also while bytes wait and after one
//! half has ended: the other side is reset, so that its application does not mistake it for an orderly end. Bytes that
//! came before a reset are delivered first, as long as their reader takes them.

mod counts;
mod linger;
mod pump;

pub use counts::{Counts, Totals};

use super::reset_on_drop::reset_on_close;
use bytes::{Bytes, BytesMut};
use counts::ByteCounter;
use hbone::{Reason, Stream};
use pump::{Broken, Ended, Finished, SocketState};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// Size of the block that is read into, bytes; one read returns at most so many.
const BLOCK_BYTES: usize = 64 << 10;
/// Room that a block must have for another read, bytes. A quarter: less would mean more system calls.
const LEAST_ROOM_BYTES: usize = 16 << 10;
/// Reads up to this are copied, so that a slow small stream does not hold a whole block, bytes.
const COPY_BYTES: usize = BLOCK_BYTES / 8;
/// Time without progress after which bytes that came before a reset are given up.
const STALL: Duration = Duration::from_secs(2);
/// Error code with which a peer may pass on that its socket was reset (RFC 9113, section 8.5).
const CONNECT_ERROR: Reason = Reason::Other(0xa);
/// Error code with which this side passes it on. RFC 9113, section 8.5, asks for `CONNECT_ERROR`, after which Istio's proxy
/// leaves its application waiting for an end that does not come; it passes `CANCEL` on at once. Strake and Envoy treat both
/// as a loss.
const LOSS: Reason = Reason::Cancel;

/// Block into which a worker reads, for all its connections: idle ones own no buffer.
#[derive(Debug, Default)]
pub struct Scratch(RefCell<BytesMut>);

impl Scratch {
    /// Reads the next bytes of `from`; empty at its end.
    async fn read<R: AsyncRead + Unpin>(&self, from: &mut R) -> io::Result<Bytes> {
        poll_fn(|cx| {
            let block = &mut *self.0.borrow_mut();
            if block.capacity() < LEAST_ROOM_BYTES {
                *block = BytesMut::with_capacity(BLOCK_BYTES);
            }
            // The block has at least 16 KiB of room, so the read does not make it grow.
            let n = ready!(pin!(from.read_buf(block)).poll(cx))?;
            if n > COPY_BYTES {
                // Shares the block without a copy; the rest of it serves the next read.
                return Poll::Ready(Ok(block.split_to(n).freeze()));
            }
            let data = Bytes::copy_from_slice(block);
            block.clear();
            Poll::Ready(Ok(data))
        })
        .await
    }
}

/// Failure of a relay. Resets and early ends are not failures.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// On the way from client to server.
    #[error("send: {0}")]
    Send(io::Error),
    /// On the way from server to client.
    #[error("receive: {0}")]
    Receive(io::Error),
}

/// Returns whether the error only says that a connection ended, though not in order.
pub fn is_ordinary(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(e.kind(), NotConnected | UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// Client is the socket, server is the stream.
pub async fn outbound(
    app: &mut TcpStream,
    stream: Stream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    let [received, sent] = through_stream(app, stream, scratch, counts.to_server(), counts.to_client()).await;
    outcome(sent, received)
}

/// Client is the stream, server is the socket.
pub async fn inbound(
    stream: Stream,
    app: &mut TcpStream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    let [sent, received] = through_stream(app, stream, scratch, counts.to_client(), counts.to_server()).await;
    outcome(sent, received)
}

/// Client and server are sockets.
pub async fn plain(
    client: &mut TcpStream,
    server: &mut TcpStream,
    scratch: &Scratch,
    counts: &Counts,
) -> Result<(), RelayError> {
    let states = [SocketState::default(), SocketState::default()];
    let finished = [Finished::default(), Finished::default()];
    let [sent, received] = {
        let (client_reader, client_writer) = pump::split(client, &states[0]);
        let (server_reader, server_writer) = pump::split(server, &states[1]);
        let up = pump::socket_to_socket(client_reader, server_writer, scratch, counts.to_server(), &finished[0]);
        let down = pump::socket_to_socket(server_reader, client_writer, scratch, counts.to_client(), &finished[1]);
        both(pin!(up), pin!(down), &finished).await.map(ended)
    };
    if is_lost(&sent) || is_lost(&received) {
        // The socket that was reset has nothing to wait for: its wait ends at once.
        tokio::join!(linger::until_acknowledged(client), linger::until_acknowledged(server));
        reset_on_close(client);
        reset_on_close(server);
    }
    outcome(sent, received)
}

/// Relays between a socket and a stream. Returns how the direction from the stream ended, and how the one into it.
async fn through_stream(
    app: &mut TcpStream,
    stream: Stream,
    scratch: &Scratch,
    into_stream: ByteCounter<'_>,
    from_stream: ByteCounter<'_>,
) -> [Ended; 2] {
    let (mut send, mut recv) = stream.split();
    let (state, finished) = (SocketState::default(), [Finished::default(), Finished::default()]);
    let (reader, writer) = pump::split(app, &state);
    let ends = {
        let mut out = pin!(pump::stream_to_socket(&mut recv, writer, from_stream));
        let into = pin!(pump::socket_to_stream(reader, &mut send, scratch, into_stream, &finished[1]));
        let [received, sent] = both(out.as_mut(), into, &finished).await;
        let received = match (received, &sent) {
            // The peer has reset the stream: bytes that it sent before have arrived, and are on their way to the socket.
            (None, Some(Err(Broken::Stream(_)))) => Some(linger::while_it_moves(out, || state.written()).await),
            (received, _) => received,
        };
        [received, sent].map(ended)
    };
    if ends.iter().any(is_lost) {
        // A reset discards what is queued on either side, so both queues empty first.
        tokio::join!(linger::until_acknowledged(app), linger::until_sent(&send));
        reset_on_close(app);
        send.reset(LOSS);
    }
    ends
}

/// Result of a direction: one that has not ended is finished, or ends with the other one.
fn ended(end: Option<Ended>) -> Ended {
    end.unwrap_or(Ok(()))
}

/// Waits for both directions, or for the loss of the connection. A direction that is finished counts as ended with
/// the other one. The second may note something that concerns the first.
async fn both(
    mut first: Pin<&mut impl Future<Output = Ended>>,
    mut second: Pin<&mut impl Future<Output = Ended>>,
    finished: &[Finished; 2],
) -> [Option<Ended>; 2] {
    let (mut one, mut two) = (None, None);
    poll_fn(|cx| {
        advance(first.as_mut(), &mut one, cx);
        // What the second notes is a flag in a cell, which wakes nobody: the first has to look again in this very poll.
        if advance(second.as_mut(), &mut two, cx) {
            advance(first.as_mut(), &mut one, cx);
        }
        // One direction may end long before the other (half-close). A loss ends both at once, as nothing can arrive any
        // more.
        let over = (one.is_some() || finished[0].get()) && (two.is_some() || finished[1].get());
        let whole = |end: &Option<Ended>| matches!(end, Some(Err(Broken::Whole(_) | Broken::Stream(_))));
        if over || whole(&one) || whole(&two) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    [one, two]
}

/// Polls a direction that has not ended; whether it has now.
fn advance(direction: Pin<&mut impl Future<Output = Ended>>, end: &mut Option<Ended>, cx: &mut Context<'_>) -> bool {
    if end.is_none()
        && let Poll::Ready(ended) = direction.poll(cx)
    {
        *end = Some(ended);
        return true;
    }
    false
}

/// Returns whether the connection is lost, and not only ended.
const fn is_lost(end: &Ended) -> bool {
    matches!(end, Err(Broken::Writing(_) | Broken::Stream(_) | Broken::Whole(_)))
}

fn outcome(sent: Ended, received: Ended) -> Result<(), RelayError> {
    let failure = |end: Ended| match end {
        Err(Broken::Direction(e) | Broken::Writing(e) | Broken::Stream(e) | Broken::Whole(e)) if !is_ordinary(&e) => {
            Some(e)
        }
        Err(_) | Ok(()) => None,
    };
    match (failure(sent), failure(received)) {
        (Some(e), _) => Err(RelayError::Send(e)),
        (None, Some(e)) => Err(RelayError::Receive(e)),
        (None, None) => Ok(()),
    }
}
