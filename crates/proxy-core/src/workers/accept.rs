//! Accepts the connections of one listener. It reads nothing from them; an [`Acceptor`] decides what becomes of each.

use runtime::drain::Watch;
use runtime::sys::Listener;
use runtime::sys::socket::canonical;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// Connections accepted in a row before other tasks get their turn.
const BATCH: usize = 64;
/// Pause when the process or the machine has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Number of accepts that failed for want of descriptors or memory.
const ACCEPT_FAILURES: &str = "strake_accept_failures_total";
/// Time during which a listener of a draining proxy accepts connections that the kernel has begun to complete for it:
/// longer than the round trip of a handshake between two machines.
const LAST_ACCEPTS: Duration = Duration::from_millis(25);

/// Receiver of the connections of one listener. `Break` ends the accepting: nobody is served here any more.
pub trait Acceptor {
    /// Takes a connection, once there is budget for it. Until then the next ones wait with the kernel, which completes no
    /// more when its queue is full.
    fn accepted(&self, socket: TcpStream, client: SocketAddr) -> impl Future<Output = ControlFlow<()>>;

    /// Logs that an accept failed for want of descriptors or memory; it is tried again.
    fn exhausted(&self, error: &io::Error) -> ControlFlow<()>;
}

/// Accepts until the acceptor breaks or the proxy drains. Connections that the kernel has completed before the drain are
/// accepted for [`LAST_ACCEPTS`] more: closing the listener would reset them, though a successor listens beside it.
pub async fn accept(acceptor: impl Acceptor, listener: Listener, mut drain: Watch) {
    let mut accepting = pin!(accept_all(&acceptor, &listener));
    tokio::select! {
        // Both may be dropped; the first continues below.
        () = accepting.as_mut() => return,
        _ = drain.started() => {}
    }
    // New connections go to the successor from here on; those that are in this listener's queue already are accepted
    // below.
    listener.leave_group();
    let _ = timeout(LAST_ACCEPTS, accepting).await;
}

async fn accept_all(acceptor: &impl Acceptor, listener: &Listener) {
    let mut row = 0;
    loop {
        let next = match listener.accept().await {
            Ok((socket, client)) => acceptor.accepted(socket, canonical(client)).await,
            Err(e) if is_transient(&e) => ControlFlow::Continue(()),
            Err(e) => {
                metrics::counter!(ACCEPT_FAILURES).increment(1);
                let next = acceptor.exhausted(&e);
                if next.is_continue() {
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                next
            }
        };
        if next.is_break() {
            return;
        }
        // `accept` is ready as long as the queue is not empty: without a pause, a flood at one listener would leave no
        // turn to the connections that are open.
        row = (row + 1) % BATCH;
        if row == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// The connection is gone, but the listener is fine.
fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}
