//! A tunnel from its first byte to its last stream.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hbone::{Server, TunnelError};
use http::StatusCode;
use identity::Identity;
use proxy_core::budget::{self, Descriptors, Owner, Resource, Window};
use proxy_core::certificate::{self, WaitError};
use proxy_core::validity::{self, Validity};
use runtime::Permit;
use tls::TlsError;
use tls::stream::TlsStream;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::requests;
use crate::context::WorkerContext;

/// Time that a peer has for its first message, from the first byte on.
const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a peer has for TLS and the start of HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one tunnel that may be worked on, for each stream that its peer may have open; see `ztunnel`.
const REQUESTS_PER_STREAM: usize = 2;
const FLOODS: &str = "strake_hbone_floods_total";
const REQUESTS_REFUSED: &str = "strake_hbone_requests_refused_total";
const EXPIRED: &str = "strake_tunnels_expired_total";

/// A connection that does not become a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("io error: {0}")]
    Io(#[from] std::io::Error),
    #[error("no handshake in time")]
    Timeout,
    #[error("no certificate: {0}")]
    Certificate(String),
    #[error("tls: {0}")]
    Tls(Box<TlsError>),
    /// The peer has proved no identity.
    #[error("the peer has no identity")]
    NoIdentity,
    #[error(transparent)]
    Http2(#[from] TunnelError),
    /// One client has as many tunnels as it may.
    #[error("too many tunnels")]
    Budget,
}

impl AcceptError {
    const fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io",
            Self::Timeout => "handshake_timeout",
            Self::Certificate(_) => "certificate",
            Self::Tls(_) => "tls",
            Self::NoIdentity => "no_identity",
            Self::Http2(e) => e.code(),
            Self::Budget => "budget",
        }
    }
}

/// Properties that all streams of a tunnel share.
pub(super) struct Tunnel {
    pub context: Rc<WorkerContext>,
    pub client: SocketAddr,
    pub identity: Identity,
    validity: Validity,
    _permit: Permit<IpAddr>,
    _window: Window,
    _descriptors: Descriptors,
}

/// Carries a tunnel to its end.
pub async fn serve(context: Rc<WorkerContext>, socket: TcpStream, client: SocketAddr, descriptors: Descriptors) {
    let accepted = timeout(HANDSHAKE_TIMEOUT, accept(&context, socket, client, descriptors)).await;
    match accepted.unwrap_or(Err(AcceptError::Timeout)) {
        Ok((tunnel, server)) => streams(Rc::new(tunnel), server).await,
        Err(error) => tracing::info!(%client, %error, code = error.code(), "failed to accept a tunnel; closed"),
    }
}

async fn accept(
    context: &Rc<WorkerContext>,
    mut socket: TcpStream,
    client: SocketAddr,
    descriptors: Descriptors,
) -> Result<(Tunnel, Server<TlsStream<TcpStream>>), AcceptError> {
    let shared = &context.shared;
    // Wait for the first byte before a buffer is made and a permit taken, so that idle connections cost neither.
    socket.readable().await?;
    let hello = timeout(CLIENT_HELLO_TIMEOUT, tls::stream::client_hello(&mut socket)).await;
    let hello = hello.map_err(|_| AcceptError::Timeout)?.map_err(failure)?;
    let own = certificate::wait_for(&shared.certificates, &shared.identity, HANDSHAKE_TIMEOUT).await;
    let own = own.map_err(|e| match e {
        WaitError::Refused(e) => AcceptError::Certificate(e.to_string()),
        WaitError::Timeout(waited) => AcceptError::Certificate(format!("none within {waited:?}")),
    })?;
    let permit = handshake_permit(context, client.ip()).await;
    let config = context.tls.server(&own).map_err(|e| AcceptError::Tls(Box::new(e)))?;
    let (tls, leaf) = tls::stream::accept_after(socket, hello, config, tls::peer_leaf).await.map_err(failure)?;
    let leaf = leaf.ok_or(AcceptError::NoIdentity)?;
    let identity = leaf.identity().cloned().ok_or(AcceptError::NoIdentity)?;
    let window = shared.budgets.window(&shared.usage, shared.tunnels.connection_window_bytes);
    let server = Server::handshake(tls, &window.apply(&shared.tunnels)).await;
    let server = server.inspect_err(|e| count_flood(client, &identity, e))?;
    drop(permit);
    // After the handshake, so that connections that never become tunnels take no place of those that are.
    let Some(permit) = context.client_tunnels.try_acquire(&client.ip()) else {
        budget::exceeded(&shared.usage, Resource::Tunnels, Owner::Source(client.ip()));
        return Err(AcceptError::Budget);
    };
    let validity = Validity::of(&leaf);
    let context = context.clone();
    let tunnel =
        Tunnel { context, client, identity, validity, _permit: permit, _window: window, _descriptors: descriptors };
    Ok((tunnel, server))
}

async fn handshake_permit(context: &WorkerContext, client: IpAddr) -> Permit<IpAddr> {
    match context.handshakes.try_acquire(&client) {
        Some(permit) => permit,
        None => {
            budget::exceeded(&context.shared.usage, Resource::Handshakes, Owner::Source(client));
            context.handshakes.acquire(client).await
        }
    }
}

fn failure(e: std::io::Error) -> AcceptError {
    match tls::diagnose(&e) {
        Some(tls) => AcceptError::Tls(Box::new(tls)),
        None => AcceptError::Io(e),
    }
}

/// Accepts streams until the tunnel ends. When the proxy drains, or the peer's certificate has expired, GOAWAY asks the peer
/// to open no more; a lifetime of the certificate later the streams that are left are cut.
async fn streams(tunnel: Rc<Tunnel>, mut server: Server<TlsStream<TcpStream>>) {
    let shared: &Arc<_> = &tunnel.context.shared;
    let mut drain = shared.drain.clone();
    let (mut draining, mut expired) = (false, false);
    let mut passing = Box::pin(validity::passed(Some(tunnel.validity.not_after)));
    let limit = REQUESTS_PER_STREAM * shared.tunnels.max_concurrent_streams as usize;
    loop {
        // Dropping `accept` loses no request: those that have arrived wait in the connection.
        let next = tokio::select! {
            next = server.accept() => next,
            _ = drain.started(), if !draining => {
                draining = true;
                server.drain();
                continue;
            }
            () = passing.as_mut() => {
                metrics::counter!(EXPIRED, "outcome" => if expired { "cut" } else { "drained" }).increment(1);
                tracing::info!(peer = %tunnel.client, code = "expired", cut = expired, "certificate of the tunnel's peer has expired");
                if expired {
                    // Dropping the server resets what is open.
                    return;
                }
                expired = true;
                passing.set(validity::passed(Some(tunnel.validity.cut_at)));
                server.drain();
                continue;
            }
        };
        match next {
            // Each request that is worked on holds the tunnel, as this function does.
            Ok(Some(request)) if Rc::strong_count(&tunnel) > limit => {
                metrics::counter!(REQUESTS_REFUSED).increment(1);
                budget::exceeded(&shared.usage, Resource::Requests, Owner::Tunnel(tunnel.client.ip()));
                request.refuse(StatusCode::SERVICE_UNAVAILABLE);
            }
            Ok(Some(request)) => tunnel.context.clients.spawn(requests::serve(tunnel.clone(), request)),
            Ok(None) => return,
            Err(e) => {
                count_flood(tunnel.client, &tunnel.identity, &e);
                tracing::debug!(peer = %tunnel.client, error = %e, code = e.code(), "tunnel ended");
                return;
            }
        }
    }
}

/// Counts and logs a peer that was disconnected because it sends too many frames of a kind.
fn count_flood(peer: SocketAddr, identity: &Identity, e: &TunnelError) {
    let Some(flood) = e.flood() else { return };
    metrics::counter!(FLOODS, "kind" => flood.code()).increment(1);
    tracing::warn!(%peer, %identity, kind = flood.code(), error = %e, "closed a tunnel whose peer floods it");
}
