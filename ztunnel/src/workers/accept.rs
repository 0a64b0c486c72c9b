//! Admits the connections of a pod's listener and decides which worker carries them. It reads nothing from them.

use super::dispatch::dispatch;
use super::worker::{ServedPod, Worker};
use super::{Command, Handover};
use crate::inpod::{ListenerKind, Pod};
use proxy_core::budget::{self, Descriptors, Owner, Resource};
use proxy_core::workers::Acceptor;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Pause of a pod's listener whose connections hold all the descriptors that there are for them.
const BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// A listener of a pod, on the worker that the pod belongs to.
pub(super) struct PodAcceptor {
    pub(super) worker: Rc<Worker>,
    /// Must not keep the pod alive: its listeners end with it.
    pub(super) pod: Weak<ServedPod>,
    pub(super) kind: ListenerKind,
    /// Dials on behalf of its clients may use their addresses.
    pub(super) transparent: bool,
}

impl Acceptor for PodAcceptor {
    async fn accepted(&self, socket: TcpStream, client: SocketAddr) -> ControlFlow<()> {
        let Some((served, descriptors)) = self.admit().await else { return ControlFlow::Break(()) };
        // Counted before the next accept, so that a burst is spread by what it adds itself.
        let (pod, load) = (served.context.pod.clone(), self.worker.handles.own().add_load());
        let Self { kind, transparent, .. } = *self;
        route(&self.worker, &served, Handover { pod, kind, socket, client, transparent, load, descriptors });
        ControlFlow::Continue(())
    }

    fn exhausted(&self, error: &io::Error) -> ControlFlow<()> {
        let Some(served) = self.pod.upgrade() else { return ControlFlow::Break(()) };
        served.context.span().in_scope(|| {
            tracing::warn!(%error, port = self.kind.port(), code = "accept", "failed to accept; trying again");
        });
        ControlFlow::Continue(())
    }
}

impl PodAcceptor {
    /// Returns the descriptors for an accepted connection, once there are so many for its pod; `None` when the pod is gone.
    async fn admit(&self) -> Option<(Rc<ServedPod>, Descriptors)> {
        loop {
            let served = self.pod.upgrade()?;
            let context = &served.context;
            let budgets = &context.shared().budgets;
            if let Some(descriptors) = budgets.descriptors(&context.pod.usage, self.kind.descriptors()) {
                return Some((served, descriptors));
            }
            budget::exceeded(&context.pod.usage, Resource::Descriptors, Owner::Pod);
            // Must not keep the pod alive while it waits.
            drop(served);
            tokio::time::sleep(BUDGET_PAUSE).await;
        }
    }
}

/// Gives a connection to the least busy worker, or keeps it.
fn route(worker: &Worker, served: &ServedPod, mut connection: Handover) {
    // Only now can it move: no runtime watches the socket yet, and no byte was read from it.
    if let Some(other) = worker.handles.less_busy() {
        connection.load = other.add_load();
        match other.try_send(Command::Carry(connection)) {
            // Its queue is full: stays here.
            Err(Command::Carry(back)) => {
                connection = Handover { load: worker.handles.own().add_load(), ..back };
            }
            Ok(()) | Err(Command::Start { .. } | Command::Stop { .. }) => return,
        }
    }
    carry(served, connection);
}

/// Starts carrying a connection on this worker. A socket that its runtime cannot watch is closed.
pub(super) fn carry(served: &ServedPod, connection: Handover) {
    match connection.register() {
        Ok(connection) => dispatch(&served.context, connection),
        Err(error) => warn_unregistered(&served.context.pod, &error),
    }
}

pub(super) fn warn_unregistered(pod: &Pod, error: &io::Error) {
    tracing::warn!(uid = pod.uid, %error, code = "watch", "failed to register accepted socket; connection closed");
}
