//! One worker of the waypoint: its listener, its connections, its commands and its drain.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use proxy_core::workers::{self, Tasks};
use runtime::sys::Listener;
use tokio::time::timeout;

use super::accept::TunnelAcceptor;
use super::{Command, Handover};
use crate::context::WorkerContext;
use crate::inner::{self, ClientIo};

/// Time that cut tasks have to be gone.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A worker, on its thread.
pub(super) struct Worker {
    context: Rc<WorkerContext>,
    listeners: Tasks,
}

impl Worker {
    pub(super) fn new(context: WorkerContext) -> Self {
        Self { context: Rc::new(context), listeners: Tasks::default() }
    }

    fn listen(&self, listener: TcpListener) -> io::Result<()> {
        // Belongs to this worker's runtime from here on.
        let listener = Listener::new(listener)?;
        let context = self.context.clone();
        self.listeners.spawn(async move {
            let drain = context.shared.drain.clone();
            let accepting = workers::accept(TunnelAcceptor(context.clone()), listener, drain);
            // Without it the kernel would take connections that nobody serves.
            context.handles.essential(accepting).await;
        });
        Ok(())
    }
}

impl workers::Worker for Worker {
    type Command = Command;

    fn handle(self: &Rc<Self>, command: Command) {
        match command {
            Command::Listen { listener, done } => {
                let _ = done.send(self.listen(listener));
            }
            Command::Serve(Handover { opened, io, load }) => {
                let context = self.context.clone();
                self.context.clients.spawn(async move {
                    inner::serve(context, opened, ClientIo::Channel(io)).await;
                    drop(load);
                });
            }
        }
    }

    fn flush(&self) {
        self.context.connections.reap();
    }

    async fn drain(self: Rc<Self>) -> usize {
        // Accept loops see the drain as well.
        let _ = timeout(CUT_TIMEOUT, self.listeners.ended()).await;
        self.listeners.cut();
        let clients = &self.context.clients;
        let mut drain = self.context.shared.drain.clone();
        tokio::select! {
            () = clients.ended() => return 0,
            () = drain.expired() => {}
        }
        let left = clients.count();
        self.context.is_cut.set(true);
        clients.cut();
        // A cut connection is reset when its task is gone, which the process must not end before.
        let _ = timeout(CUT_TIMEOUT, clients.ended()).await;
        left
    }
}
