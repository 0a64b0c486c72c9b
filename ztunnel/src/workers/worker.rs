//! One worker of the node proxy: the pods it serves, with their listeners, and its commands.

use super::accept::{self, PodAcceptor};
use super::{Command, Handover, dns};
use crate::inpod::{Listening, Pod, PodListeners};
use crate::proxy::{PodContext, WorkerContext};
use proxy_core::workers::{self, Tasks, WorkerHandles};
use runtime::sys::Listener;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time that cut tasks have to be gone.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker, on its thread.
pub(super) struct Worker {
    pub(super) handles: WorkerHandles<Command>,
    pub(super) context: Rc<WorkerContext>,
    /// By serial.
    pub(super) pods: RefCell<HashMap<u64, Rc<ServedPod>>>,
    pub(super) draining: Cell<bool>,
}

/// One pod on one worker.
pub(super) struct ServedPod {
    pub(super) context: Rc<PodContext>,
    /// Accept loops; only on the worker that the pod belongs to.
    pub(super) listeners: Tasks,
}

impl workers::Worker for Worker {
    type Command = Command;

    fn handle(self: &Rc<Self>, command: Command) {
        match command {
            Command::Carry(connection) => self.carry(connection),
            Command::Start { pod, listeners, done } => {
                let _ = done.send(self.start_pod(&pod, listeners));
            }
            Command::Stop { pod, done } => self.stop_pod(&pod, done),
        }
    }

    fn flush(&self) {
        self.context.open_connections.flush();
    }

    async fn drain(self: Rc<Self>) -> usize {
        // A pod that starts from here on would accept connections for whose end nobody waits.
        self.draining.set(true);
        // Accept loops see the drain as well. One whose pod holds all descriptors that there are for it does not end by
        // itself.
        let closed = async {
            for pod in self.pods() {
                pod.listeners.ended().await;
            }
        };
        let _ = timeout(CUT_TIMEOUT, closed).await;
        for pod in self.pods() {
            pod.listeners.cut();
            pod.listeners.ended().await;
        }
        let mut drain = self.context.shared.drain.clone();
        tokio::select! {
            () = self.connections_ended() => return 0,
            () = drain.expired() => {}
        }
        let mut left = 0;
        for pod in self.pods() {
            left += pod.context.connections.count();
            pod.context.connections.cut();
        }
        // A cut connection is reset when its task is gone, which the process must not end before.
        let _ = timeout(CUT_TIMEOUT, self.connections_ended()).await;
        left
    }
}

impl Worker {
    /// The part of `pod` on this worker, made when there is none.
    fn pod(&self, pod: &Arc<Pod>) -> Rc<ServedPod> {
        let mut pods = self.pods.borrow_mut();
        let served = pods.entry(pod.serial).or_insert_with(|| {
            let context = Rc::new(PodContext::new(self.context.clone(), pod.clone()));
            Rc::new(ServedPod { context, listeners: Tasks::default() })
        });
        served.clone()
    }

    /// All pods on this worker.
    fn pods(&self) -> Vec<Rc<ServedPod>> {
        self.pods.borrow().values().cloned().collect()
    }

    /// Carries a connection that another worker has accepted.
    fn carry(&self, connection: Handover) {
        // A pod that was stopped must not be made again.
        if !connection.pod.is_stopped() {
            accept::carry(&self.pod(&connection.pod), connection);
        }
    }

    fn start_pod(self: &Rc<Self>, pod: &Arc<Pod>, listeners: PodListeners) -> io::Result<()> {
        if self.draining.get() || pod.is_stopped() {
            return Err(io::Error::other("the proxy drains, or the pod was stopped meanwhile"));
        }
        let served = self.pod(pod);
        // An error leaves those that were registered before it; `launch` stops the pod then.
        for (kind, Listening { listener, transparent }) in listeners.connections {
            // Belongs to this worker's runtime from here on.
            let listener = Listener::new(listener)?;
            let acceptor = PodAcceptor { worker: self.clone(), pod: Rc::downgrade(&served), kind, transparent };
            let drain = self.context.shared.drain.clone();
            let worker = self.clone();
            served.listeners.spawn(async move {
                // Without its accept loop a port would take connections into the kernel's queue that nobody serves: a
                // loop that panics takes the worker with it, and so the process, which Kubernetes starts again.
                worker.handles.essential(workers::accept(acceptor, listener, drain)).await;
            });
        }
        match &pod.sockets.options().dns {
            Some(options) => dns::serve(self, &served, options, listeners.dns),
            None => Ok(()),
        }
    }

    fn stop_pod(&self, pod: &Pod, done: oneshot::Sender<()>) {
        // Out of the map at once: a connection that is handed over now finds the pod stopped.
        let stopped = self.pods.borrow_mut().remove(&pod.serial);
        tokio::task::spawn_local(async move {
            if let Some(served) = stopped {
                served.listeners.cut();
                served.context.connections.cut();
                // A socket is closed when its task is gone, not when that is cut: the agent must not hear of it before.
                served.listeners.ended().await;
                served.context.connections.ended().await;
            }
            let _ = done.send(());
        });
    }

    /// Returns when no pod has a connection, including those that other workers hand over meanwhile.
    async fn connections_ended(&self) {
        while let Some(busy) = self.pods().into_iter().find(|pod| pod.context.connections.count() > 0) {
            busy.context.connections.ended().await;
        }
    }
}
