//! DNS of a pod on the worker that it belongs to: runs the loops of the crate `dns` on the pod's sockets. What is answered is
//! decided there.

use super::accept::warn_unregistered;
use super::nameservers::Nameservers;
use super::worker::{ServedPod, Worker};
use crate::inpod::{DnsListening, DnsOptions};
use dns::{Client, Server};
use proxy_core::budget::{self, Descriptors, Owner, Resource};
use proxy_core::workers::{self, Acceptor};
use runtime::sys::Listener;
use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Connections of one pod with questions over TCP. Further ones wait with the kernel; an idle one is closed after 5 s.
pub const DNS_CONNECTIONS: usize = 256;
/// Pause of a listener whose pod has as many connections as it may.
const BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// Answers questions on all of `listening`, as long as the pod is served.
///
/// # Errors
/// When the worker's runtime cannot watch a socket.
pub(super) fn serve(
    worker: &Rc<Worker>,
    served: &Rc<ServedPod>,
    options: &DnsOptions,
    listening: Vec<DnsListening>,
) -> io::Result<()> {
    let (pod, shared) = (&served.context.pod, served.context.shared());
    let client = Client {
        namespace: pod.info.namespace.clone(),
        name: pod.info.name.clone(),
        service_account: pod.info.service_account.clone(),
    };
    let nameservers = Nameservers { pod: pod.clone(), budgets: shared.budgets.clone() };
    let server = Rc::new(Server::new(shared.state.clone(), options.settings.clone(), client, nameservers));
    let open = Rc::new(Cell::new(0));
    for DnsListening { udp, tcp } in listening {
        let udp = tokio::net::UdpSocket::from_std(udp)?;
        let tcp = Listener::new(tcp)?;
        let pod = Rc::downgrade(served);
        // Answers are tasks of the pod like its connections: a drain waits for them, and its end cuts them.
        let spawn = {
            let pod = pod.clone();
            move |answering| {
                if let Some(served) = pod.upgrade() {
                    served.context.connections.spawn(answering);
                }
            }
        };
        // Neither loop may end by itself: see `Worker::start_pod`.
        let (handles, drain, questions) = (worker.clone(), shared.drain.clone(), server.clone());
        served.listeners.spawn(async move {
            handles.handles.essential(dns::serve_udp(questions, udp, drain, spawn)).await;
        });
        let acceptor = DnsAcceptor { pod, server: server.clone(), open: open.clone() };
        let (handles, drain) = (worker.clone(), shared.drain.clone());
        served.listeners.spawn(async move {
            handles.handles.essential(workers::accept(acceptor, tcp, drain)).await;
        });
    }
    Ok(())
}

/// The listener for questions over TCP. Its connections stay on this worker: they are short.
struct DnsAcceptor {
    /// Must not keep the pod alive: its listeners end with it.
    pod: Weak<ServedPod>,
    server: Rc<Server<Nameservers>>,
    /// Connections of the pod, of both families.
    open: Rc<Cell<usize>>,
}

/// A connection that may be open.
struct Admitted {
    served: Rc<ServedPod>,
    permit: Permit,
}

/// Counts a connection.
struct Permit {
    open: Rc<Cell<usize>>,
    _descriptors: Descriptors,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

impl Acceptor for DnsAcceptor {
    async fn accepted(&self, socket: TcpStream, client: SocketAddr) -> ControlFlow<()> {
        let Some(Admitted { served, permit }) = self.admit().await else { return ControlFlow::Break(()) };
        let (server, drain) = (self.server.clone(), served.context.shared().drain.clone());
        match tokio::net::TcpStream::from_std(socket) {
            Ok(stream) => served.context.connections.spawn(async move {
                let _permit = permit;
                dns::serve_tcp(server, stream, client, drain).await;
            }),
            Err(error) => warn_unregistered(&served.context.pod, &error),
        }
        ControlFlow::Continue(())
    }

    fn exhausted(&self, error: &io::Error) -> ControlFlow<()> {
        let Some(served) = self.pod.upgrade() else { return ControlFlow::Break(()) };
        served.context.span().in_scope(|| {
            tracing::warn!(%error, listener = "dns", code = "accept", "failed to accept; trying again");
        });
        ControlFlow::Continue(())
    }
}

impl DnsAcceptor {
    /// Returns once the pod may have another connection; `None` when the pod is gone.
    async fn admit(&self) -> Option<Admitted> {
        loop {
            let served = self.pod.upgrade()?;
            let (context, usage) = (&served.context, &served.context.pod.usage);
            if self.open.get() >= DNS_CONNECTIONS {
                budget::exceeded(usage, Resource::DnsConnections, Owner::Pod);
            } else if let Some(descriptors) = context.shared().budgets.descriptors(usage, 1) {
                self.open.set(self.open.get() + 1);
                let permit = Permit { open: self.open.clone(), _descriptors: descriptors };
                return Some(Admitted { served, permit });
            } else {
                budget::exceeded(usage, Resource::Descriptors, Owner::Pod);
            }
            // Must not keep the pod alive while it waits.
            drop(served);
            tokio::time::sleep(BUDGET_PAUSE).await;
        }
    }
}
