//! Accepts connections and decides which worker carries them. It reads nothing from them.

use super::{Handover, PodHere};
use crate::inpod::Pod;
use runtime::sys::Listener;
use runtime::sys::socket::canonical;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Connections accepted in a row before other tasks get their turn.
const BATCH: usize = 64;
/// Pause when the process or the machine has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How much busier than the least busy worker one may be before it gives connections away. Small
/// differences are not worth a wake-up of another thread, and a second tunnel: with 1, every other one of sixteen
/// short connections at a time was given away.
const SLACK: usize = 4;

/// The three ways into a pod's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// 15001: what the pod's applications open.
    Outbound,
    /// 15008: tunnels of other proxies.
    Hbone,
    /// 15006: everything else that comes to the pod.
    Plaintext,
}

impl ListenerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Hbone, Self::Plaintext];

    /// The port, which peers, redirection and tools know.
    pub const fn port(self) -> u16 {
        match self {
            Self::Outbound => 15001,
            Self::Plaintext => 15006,
            Self::Hbone => model::HBONE_PORT,
        }
    }

    /// Application connections need TCP's keepalive; tunnels have pings.
    pub const fn needs_keepalive(self) -> bool {
        match self {
            Self::Outbound | Self::Plaintext => true,
            Self::Hbone => false,
        }
    }
}

/// Accepts until the pod stops or the proxy drains.
pub(super) async fn accept(here: Weak<PodHere>, kind: ListenerKind, listener: Listener, transparent: bool) {
    let mut row = 0;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let Some(here) = here.upgrade() else { return };
                let (peer, load) = (canonical(peer), here.worker.handle().add_load());
                route(&here, Handover { pod: here.pod.clone(), kind, socket, peer, transparent, load });
            }
            Err(e) if is_transient(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, port = kind.port(), "cannot accept connections");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
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

fn route(here: &Rc<PodHere>, mut connection: Handover) {
    let own = here.worker.handle();
    let least = here.worker.handles.iter().min_by_key(|h| h.load()).unwrap_or(own);
    // The connection itself is counted already.
    if own.load() > least.load() + 1 + SLACK {
        connection.load = least.add_load();
        match least.hand_over(connection) {
            Ok(()) => return,
            Err(back) => connection = Handover { load: own.add_load(), ..back },
        }
    }
    match connection.arrive() {
        Ok(connection) => here.take(connection),
        Err(e) => unwatchable(&here.pod, &e),
    }
}

/// A socket that no runtime can watch is closed.
pub(super) fn unwatchable(pod: &Pod, error: &io::Error) {
    tracing::warn!(uid = pod.uid, %error, code = "watch", "a connection is closed that cannot be watched");
}
