//! First step: finds the original destination of an accepted socket, and the workload of its pod.

use super::context::PodContext;
use super::reset_on_drop::ResetOnDrop;
use crate::inpod::{ListenerKind, Pod, PodInfo};
use model::Workload;
use model::view::is_proxy_port;
use runtime::sys::socket;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// An accepted connection of an application on its worker. Dropped, it is reset: a failure must not look like an orderly
/// end.
#[derive(Debug)]
pub struct Captured {
    pub socket: ResetOnDrop,
    /// Address that opened it.
    pub client: SocketAddr,
    /// Address that the client connected to.
    pub original_dst: SocketAddr,
}

/// A connection that fails before its destination is resolved.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It would come back to the proxy.
    #[error("attempted recursive call to ourselves")]
    SelfCall { original_dst: SocketAddr },
    /// Discovery does not know the pod.
    #[error("failed to fetch information about local workload: {service_account}.{namespace} ({name})")]
    UnknownWorkload { service_account: String, namespace: String, name: String },
    /// The client is gone already.
    #[error("io error: {0}")]
    Socket(#[from] io::Error),
}

impl CaptureError {
    /// Discovery does not know the pod, or knows no identity of it.
    pub(super) fn unknown_workload(info: &PodInfo) -> Self {
        Self::UnknownWorkload {
            service_account: info.service_account.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
        }
    }

    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SelfCall { .. } => "self_call",
            Self::UnknownWorkload { .. } => "unknown_local_workload",
            Self::Socket(_) => "io",
        }
    }
}

/// Way in which connections of a pod reach their listener; found out from the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// Netfilter has changed the destination to the listener's and knows the original one.
    Redirected,
    /// The kernel hands them over as they are (`sk_lookup`, TPROXY).
    Assigned,
}

/// Finds the original destination of a connection that the listener of `kind` accepted, and refuses one that leads to a
/// listener of this proxy. One system call when it is steered as the connection before it, which `context.steering`
/// remembers.
pub fn captured(
    context: &PodContext,
    kind: ListenerKind,
    accepted: TcpStream,
    client: SocketAddr,
) -> Result<Captured, CaptureError> {
    let socket = ResetOnDrop::new(accepted);
    let original_dst = original_dst(&socket, client, kind.port(), &context.steering)?;
    if is_self_call(context, kind, original_dst)? {
        return Err(CaptureError::SelfCall { original_dst });
    }
    Ok(Captured { socket, client, original_dst })
}

/// Returns whether the connection was made to a listener of this proxy.
///
/// A connection to the pod is for the pod, by whatever address. One that an application of the pod opens may be for the
/// same port of another machine: then the kernel's routes say whether the address is one of this namespace.
fn is_self_call(context: &PodContext, kind: ListenerKind, original_dst: SocketAddr) -> io::Result<bool> {
    if !is_proxy_port(original_dst) {
        return Ok(false);
    }
    match kind {
        ListenerKind::Outbound => context.pod.sockets.is_local(original_dst.ip()),
        ListenerKind::Plaintext | ListenerKind::Hbone => Ok(true),
    }
}

/// Returns the original destination: from netfilter when that redirected it, else from the socket, which keeps it.
fn original_dst(
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
    // `sk_lookup` and TPROXY leave the destination as it was: the accepted socket is bound to it.
    let local = socket::canonical(accepted.local_addr()?);
    if local.port() != port {
        steering.set(Steering::Assigned);
        return Ok(local);
    }
    // The listener's own port: netfilter has put it there, or a client has connected to the proxy itself.
    match steering.get() {
        Steering::Redirected => Ok(local),
        Steering::Assigned => {
            Ok(socket::original_dst(accepted, client).inspect(|_| steering.set(Steering::Redirected)).unwrap_or(local))
        }
    }
}

/// Returns the workload of the pod; waits for discovery for up to [`model::LOCAL_WORKLOAD_WAIT`].
pub async fn local_workload(state: &model::State, pod: &Pod) -> Result<Arc<Workload>, CaptureError> {
    let info = &pod.info;
    if let Some(found) = state.local(&info.namespace, &info.name, &info.service_account) {
        return Ok(found);
    }
    // Boxed, as it is rare.
    Box::pin(state.wait_for_local(&info.namespace, &info.name, &info.service_account, model::LOCAL_WORKLOAD_WAIT))
        .await
        .ok_or_else(|| CaptureError::unknown_workload(info))
}
