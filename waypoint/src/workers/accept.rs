//! Admits the tunnels of a listener. It reads nothing from them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use proxy_core::budget::{self, Owner, Resource};
use proxy_core::workers::Acceptor;

use crate::context::WorkerContext;
use crate::tunnel;

/// Pause while connections hold all the descriptors that there are.
const BUDGET_PAUSE: Duration = Duration::from_millis(20);

/// A worker's listener.
pub(super) struct TunnelAcceptor(pub(super) Rc<WorkerContext>);

impl Acceptor for TunnelAcceptor {
    async fn accepted(&self, socket: TcpStream, client: SocketAddr) -> ControlFlow<()> {
        let Self(context) = self;
        let shared = &context.shared;
        let descriptors = loop {
            match shared.budgets.descriptors(&shared.usage, 1) {
                Some(descriptors) => break descriptors,
                None => {
                    budget::exceeded(&shared.usage, Resource::Descriptors, Owner::Pod);
                    tokio::time::sleep(BUDGET_PAUSE).await;
                }
            }
        };
        match tokio::net::TcpStream::from_std(socket) {
            Ok(socket) => {
                // Fails only on a socket that is gone.
                let _ = socket.set_nodelay(true);
                context.clients.spawn(tunnel::serve(context.clone(), socket, client, descriptors));
            }
            Err(error) => {
                tracing::warn!(%client, %error, code = "watch", "failed to register accepted socket; connection closed");
            }
        }
        ControlFlow::Continue(())
    }

    fn exhausted(&self, error: &io::Error) -> ControlFlow<()> {
        tracing::warn!(%error, port = contract::ports::HBONE, code = "accept", "failed to accept; trying again");
        ControlFlow::Continue(())
    }
}
