//! Accepts connections and decides which worker carries them. It reads nothing from them.

use super::Handover;
use super::dispatch::dispatch;
use super::worker::{ServedPod, Worker};
use crate::budget::{self, Descriptors, Owner, Resource};
use crate::inpod::{ListenerKind, Pod};
use runtime::drain::Watch;
use runtime::sys::Listener;
use runtime::sys::socket::canonical;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::timeout;

/// Connections accepted in a row before other tasks get their turn.
const BATCH: usize = 64;
/// Pause when the process or the machine has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Pause of a pod's listener whose connections hold all that there is for them.
const BUDGET_PAUSE: Duration = Duration::from_millis(20);
/// Accepts that failed for want of descriptors or memory.
const ACCEPT_FAILURES: &str = "strake_accept_failures_total";
/// How long a listener of a proxy that drains accepts what the kernel has begun to take for it: longer than the round
/// trip of a handshake between two machines.
const LAST_ACCEPTS: Duration = Duration::from_millis(25);
/// How much busier than the least busy worker one may be before it gives connections away. Small
/// differences are not worth a wake-up of another thread, and a second tunnel: with 1, every other one of sixteen
/// short connections at a time was given away.
const SLACK: usize = 4;

/// Accepts until the pod stops or the proxy drains. Connections that the kernel has taken before the drain are accepted
/// for [`LAST_ACCEPTS`] more: closing the listener would reset them, though a successor listens beside it.
pub(super) async fn accept(
    worker: Rc<Worker>,
    pod: Weak<ServedPod>,
    kind: ListenerKind,
    listener: Listener,
    transparent: bool,
    mut drain: Watch,
) {
    let accepting = accept_all(&worker, &pod, kind, &listener, transparent);
    let mut accepting = pin!(accepting);
    tokio::select! {
        // Both may be dropped; the first goes on below.
        () = accepting.as_mut() => return,
        _ = drain.started() => {}
    }
    listener.leave_group();
    let _ = timeout(LAST_ACCEPTS, accepting).await;
}

/// Accepts until the pod stops.
async fn accept_all(
    worker: &Worker,
    pod: &Weak<ServedPod>,
    kind: ListenerKind,
    listener: &Listener,
    transparent: bool,
) {
    let mut row = 0;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let Some((pod, descriptors)) = admit(pod, kind).await else { return };
                let (peer, load) = (canonical(peer), worker.handle().add_load());
                let of = pod.context.pod.clone();
                let handover = Handover { pod: of, kind, socket, peer, transparent, load, descriptors };
                route(worker, &pod, handover);
            }
            Err(e) if is_transient(&e) => {}
            Err(e) => {
                let Some(pod) = pod.upgrade() else { return };
                metrics::counter!(ACCEPT_FAILURES).increment(1);
                pod.context.span().in_scope(|| {
                    tracing::warn!(error = %e, port = kind.port(), code = "accept", "failed to accept; trying again");
                });
                drop(pod);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
        row = (row + 1) % BATCH;
        if row == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// What an accepted connection may use, once there is so much for its pod. Until then the next ones wait with the
/// kernel, which takes no more when their queue is full. `None` when the pod is gone.
async fn admit(pod: &Weak<ServedPod>, kind: ListenerKind) -> Option<(Rc<ServedPod>, Descriptors)> {
    loop {
        let served = pod.upgrade()?;
        let context = &served.context;
        if let Some(descriptors) = context.shared().budgets.descriptors(&context.pod, kind.descriptors()) {
            return Some((served, descriptors));
        }
        budget::exceeded(&context.pod, Resource::Descriptors, Owner::Pod);
        // Must not keep the pod alive.
        drop(served);
        tokio::time::sleep(BUDGET_PAUSE).await;
    }
}

/// The connection is gone, but the listener is fine.
fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

fn route(worker: &Worker, pod: &ServedPod, mut connection: Handover) {
    let own = worker.handle();
    let least = worker.handles.iter().min_by_key(|h| h.load()).unwrap_or(own);
    // The connection itself is counted already.
    if own.load() > least.load() + 1 + SLACK {
        connection.load = least.add_load();
        match least.hand_over(connection) {
            Ok(()) => return,
            Err(back) => connection = Handover { load: own.add_load(), ..back },
        }
    }
    match connection.arrive() {
        Ok(connection) => dispatch(&pod.context, connection),
        Err(e) => unwatchable(&pod.context.pod, &e),
    }
}

/// A socket that no runtime can watch is closed.
pub(super) fn unwatchable(pod: &Pod, error: &io::Error) {
    tracing::warn!(uid = pod.uid, %error, code = "watch", "failed to register accepted socket; connection closed");
}
