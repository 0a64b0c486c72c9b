//! Waits for the delivery of bytes that came before a reset, because a reset discards what is still on its way. It waits
//! only as long as something moves: a reader that does not read is reset after [`STALL`].

use super::STALL;
use super::pump::{Broken, Ended};
use hbone::SendHalf;
use runtime::sys::socket;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// First pause between two looks at the queue. Each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits until the peer of `socket` has acknowledged everything that was written to it. Returns at once for a socket that
/// was reset.
pub(super) async fn until_acknowledged(socket: &TcpStream) {
    // An error says that there is nothing to wait for.
    let waiting = || socket::unacknowledged_bytes(socket).unwrap_or(0);
    if waiting() == 0 {
        return;
    }
    // Boxed, as it is rare. Both may be dropped.
    let shrinking = Box::pin(while_it_shrinks(waiting));
    tokio::select! {
        biased;
        _ = socket.ready(Interest::ERROR) => {}
        () = shrinking => {}
    }
}

/// Waits until the tunnel has taken everything that was queued for the stream.
pub(super) async fn until_sent(stream: &SendHalf) {
    if stream.queued_bytes() > 0 {
        Box::pin(while_it_shrinks(|| stream.queued_bytes())).await;
    }
}

/// Waits until `waiting` is 0, or has not shrunk for [`STALL`].
async fn while_it_shrinks(waiting: impl Fn() -> usize) {
    let (mut least, mut since, mut pause) = (waiting(), Instant::now(), FIRST_PAUSE);
    while least > 0 && since.elapsed() < STALL {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let now = waiting();
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
}

/// Continues `direction` until it ends, or `moved` has not grown for [`STALL`].
pub(super) async fn while_it_moves(
    mut direction: Pin<&mut impl Future<Output = Ended>>,
    moved: impl Fn() -> u64,
) -> Ended {
    loop {
        let before = moved();
        match timeout(STALL, direction.as_mut()).await {
            Ok(end) => return end,
            Err(_) if moved() > before => {}
            Err(_) => return Err(Broken::Whole(ErrorKind::ConnectionReset.into())),
        }
    }
}
