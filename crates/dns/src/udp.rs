//! Questions over UDP: receives them from one socket of a pod, and answers each from a task of its own.

use crate::report::{self, Reason};
use crate::{PodNetwork, Protocol, Server};
use runtime::drain::Watch;
use runtime::sys::socket::leave_reuseport_group;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// Questions received in a row before other tasks get their turn.
const BATCH: usize = 64;
/// Most bytes of a question: a name has at most 255, and EDNS options are short. What is beyond is cut off, so that the
/// question cannot be read.
const QUESTION_BYTES: usize = 4096;
/// Time during which a draining proxy still receives what the kernel has for its socket.
const LAST_QUESTIONS: Duration = Duration::from_millis(25);
/// Pause when the kernel cannot receive.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The answering of one question. It ends by itself within some ten seconds, and may be dropped at any point.
pub type Answering = Pin<Box<dyn Future<Output = ()>>>;

/// Receives from `socket` until the proxy drains; `spawn` runs the answering of each question. The socket is closed when this
/// has ended and the last answer was sent.
pub async fn serve_udp<N: PodNetwork>(
    server: Rc<Server<N>>,
    socket: UdpSocket,
    mut drain: Watch,
    spawn: impl Fn(Answering),
) {
    let socket = Rc::new(socket);
    let mut receiving = pin!(receive(&server, &socket, &spawn));
    tokio::select! {
        // Both may be dropped; the first continues below.
        () = receiving.as_mut() => return,
        _ = drain.started() => {}
    }
    // New questions go to the successor from here on, if there is one; what is in this socket's queue would be lost.
    // Fails for a socket without `SO_REUSEPORT`, which has no successor beside it.
    let _ = leave_reuseport_group(&socket);
    let _ = timeout(LAST_QUESTIONS, receiving).await;
}

async fn receive<N: PodNetwork>(server: &Rc<Server<N>>, socket: &Rc<UdpSocket>, spawn: &impl Fn(Answering)) {
    loop {
        if let Err(error) = receive_batch(server, socket, spawn).await {
            tracing::warn!(%error, code = "dns_receive", "failed to receive DNS questions; trying again");
            sleep(ERROR_PAUSE).await;
        }
        // The socket may be ready without end: a flood must not take the turns of open connections.
        tokio::task::yield_now().await;
    }
}

async fn receive_batch<N: PodNetwork>(
    server: &Rc<Server<N>>,
    socket: &Rc<UdpSocket>,
    spawn: &impl Fn(Answering),
) -> io::Result<()> {
    socket.readable().await?;
    for _ in 0..BATCH {
        // On the stack: a pod that asks nothing holds no buffer.
        let mut buffer = [0; QUESTION_BYTES];
        let (length, from) = match socket.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        // Forged: an answer to it would come here again.
        if socket.local_addr()? == from {
            report::refused(Reason::Loop, Protocol::Udp);
            continue;
        }
        spawn(Box::pin(answer(server.clone(), socket.clone(), buffer[..length].into(), from)));
    }
    Ok(())
}

async fn answer<N: PodNetwork>(server: Rc<Server<N>>, socket: Rc<UdpSocket>, packet: Box<[u8]>, from: SocketAddr) {
    let Some(answer) = server.answer(&packet, from, Protocol::Udp).await else { return };
    // Waits only while the kernel's buffer is full.
    if socket.send_to(&answer, from).await.is_err() {
        report::refused(Reason::Unsent, Protocol::Udp);
    }
}
