//! First step: what an accepted socket is, before anything is known about its destination.

use crate::inpod::Pod;
use model::Workload;
use model::view::is_proxy_port;
use runtime::sys::socket;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// An accepted connection on its worker.
#[derive(Debug)]
pub struct Captured {
    pub socket: TcpStream,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it was meant to go; for a tunnel, the pod's own address and port.
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

/// Which destinations of a captured connection lead back to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// The proxy's ports on loopback: the pod calls its proxy's listeners.
    OnLoopback,
    /// The proxy's ports on any address: somebody outside does.
    Anywhere,
}

/// Finds out where a connection was going: from netfilter when that redirected it, else from the socket,
/// which keeps the destination under eBPF steering.
pub fn redirected(accepted: TcpStream, client: SocketAddr, refuse: Loop) -> Result<Captured, CaptureError> {
    let original = socket::original_dst(&accepted);
    let captured = tunnel(accepted, client)?;
    let destination = original.unwrap_or(captured.destination);
    let loops = match refuse {
        Loop::OnLoopback => destination.ip().is_loopback() && is_proxy_port(destination),
        Loop::Anywhere => is_proxy_port(destination),
    };
    if loops {
        return Err(CaptureError::SelfCall { destination });
    }
    Ok(Captured { destination, ..captured })
}

/// A connection that was made to the proxy itself.
pub fn tunnel(accepted: TcpStream, client: SocketAddr) -> Result<Captured, CaptureError> {
    let destination = socket::canonical(accepted.local_addr()?);
    Ok(Captured { socket: accepted, client, destination })
}

/// What discovery says of the pod; waits for it for a while.
pub async fn local_workload(state: &model::State, pod: &Pod) -> Result<Arc<Workload>, CaptureError> {
    let info = &pod.info;
    if let Some(found) = state.local(&info.namespace, &info.name, &info.service_account) {
        return Ok(found);
    }
    state
        .wait_for_local(&info.namespace, &info.name, &info.service_account, model::LOCAL_WORKLOAD_WAIT)
        .await
        .ok_or_else(|| CaptureError::UnknownWorkload {
            service_account: info.service_account.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
        })
}
