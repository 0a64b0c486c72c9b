//! First step: what an accepted socket is, before anything is known about its destination.

use super::context::PodContext;
use super::guarded::Guarded;
use crate::inpod::{ListenerKind, Pod};
use model::Workload;
use model::view::is_proxy_port;
use runtime::sys::socket;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// An accepted connection of an application on its worker. Dropped, it is reset: what fails must not look like an end.
#[derive(Debug)]
pub struct Captured {
    pub socket: Guarded,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it was meant to go.
    pub destination: SocketAddr,
}

/// A connection that is ended before anything is known about it.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It would come back to the proxy.
    #[error("attempted recursive call to ourselves")]
    SelfCall { destination: SocketAddr },
    /// Discovery does not know the pod.
    #[error("failed to fetch information about local workload: {service_account}.{namespace} ({name})")]
    UnknownWorkload { service_account: String, namespace: String, name: String },
    /// The client is gone already.
    #[error("io error: {0}")]
    Socket(#[from] io::Error),
}

impl CaptureError {
    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SelfCall { .. } => "self_call",
            Self::UnknownWorkload { .. } => "unknown_local_workload",
            Self::Socket(_) => "io",
        }
    }
}

/// How connections of a pod come to their listener; found out from the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Netfilter has changed the destination to the listener's and knows the original one.
    Redirected,
    /// The kernel hands them over as they are (`sk_lookup`, TPROXY).
    Assigned,
}

/// Finds out where a connection was going that came to the listener of `kind`, and refuses one that leads to a listener
/// of ours. One system call when it is steered as the connection before it, which `context.steering` remembers.
pub fn redirected(
    context: &PodContext,
    kind: ListenerKind,
    accepted: TcpStream,
    client: SocketAddr,
) -> Result<Captured, CaptureError> {
    let accepted = Guarded::new(accepted);
    let destination = destination(&accepted, client, kind.port(), &context.steering)?;
    if is_self_call(context, kind, destination)? {
        return Err(CaptureError::SelfCall { destination });
    }
    Ok(Captured { socket: accepted, client, destination })
}

/// Whether the connection was made to a listener of ours.
///
/// Whoever connects to the pod means it by every address. What an application of the pod opens may be for a port of
/// another machine that has the same number: then the kernel's routes say whether the address is one of this namespace.
fn is_self_call(context: &PodContext, kind: ListenerKind, destination: SocketAddr) -> io::Result<bool> {
    if !is_proxy_port(destination) {
        return Ok(false);
    }
    match kind {
        ListenerKind::Outbound => context.pod.sockets.is_local(destination.ip()),
        ListenerKind::Plaintext | ListenerKind::Hbone => Ok(true),
    }
}

/// From netfilter when that redirected it, else from the socket, which keeps the destination.
fn destination(
    accepted: &TcpStream,
    client: SocketAddr,
    port: u16,
    steering: &Cell<Steering>,
) -> io::Result<SocketAddr> {
    if steering.get() == Steering::Redirected
        && let Some(original) = socket::original_dst(accepted, client)
    {
        return Ok(original);
    }
    let local = socket::canonical(accepted.local_addr()?);
    if local.port() != port {
        steering.set(Steering::Assigned);
        return Ok(local);
    }
    // It has our port: netfilter has put it there, or somebody means the proxy.
    match steering.get() {
        Steering::Redirected => Ok(local),
        Steering::Assigned => {
            Ok(socket::original_dst(accepted, client).inspect(|_| steering.set(Steering::Redirected)).unwrap_or(local))
        }
    }
}

/// What discovery says of the pod; waits for it for a while.
pub async fn local_workload(state: &model::State, pod: &Pod) -> Result<Arc<Workload>, CaptureError> {
    let info = &pod.info;
    if let Some(found) = state.local(&info.namespace, &info.name, &info.service_account) {
        return Ok(found);
    }
    // Boxed, as it is rare.
    Box::pin(state.wait_for_local(&info.namespace, &info.name, &info.service_account, model::LOCAL_WORKLOAD_WAIT))
        .await
        .ok_or_else(|| CaptureError::UnknownWorkload {
            service_account: info.service_account.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
        })
}
