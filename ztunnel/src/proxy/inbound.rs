//! The steps of a tunnel from another proxy, and of each connection on it (listener 15008).

use super::context::PodContext;
use super::failure::RequestError;
use super::report::{Opened, Peer, Report};
use super::reset_on_drop::ResetOnDrop;
use super::{Connection, EarlyFailure, Failure, authorise, capture, dial, proxy_header, relay, report};
use crate::inpod::ListenerKind;
use hbone::headers::{self, Baggage, Trace};
use hbone::{Request, Server, Stream, TunnelError};
use http::{HeaderMap, Method, StatusCode};
use identity::Identity;
use model::Workload;
use model::view::{self, Authority, InboundRequest, InboundTarget, SourceAddress};
use policy::Registration;
use proxy_core::budget::{self, Descriptors, Owner, Resource, Window};
use proxy_core::validity::{self, Validity};
use proxy_core::workers::Load;
use runtime::Permit;
use runtime::sys::socket::canonical;
use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use telemetry::{Direction, Protocol};
use tls::stream::TlsStream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time that a peer has for its first message, from the first byte on. It fits in two packets.
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a peer has for TLS and the start of HTTP/2.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests of one tunnel that may be worked on, for each stream that its peer may have open. A peer may reset a stream and
/// open another before this side has noticed; beyond this it is answered 503 at once.
const REQUESTS_PER_STREAM: usize = 2;
/// Number of tunnels that were closed because their peer sends more frames of a kind than anybody needs.
const FLOODS: &str = "strake_hbone_floods_total";
/// Number of requests beyond [`REQUESTS_PER_STREAM`].
const REQUESTS_REFUSED: &str = "strake_hbone_requests_refused_total";

/// Number of tunnels whose peer's certificate has expired while they were open.
const EXPIRED: &str = "strake_tunnels_expired_total";

/// Properties that all streams of a tunnel share.
struct Tunnel {
    context: Rc<PodContext>,
    client: SocketAddr,
    /// Address of the pod that the tunnel came to, port 15008.
    local_addr: SocketAddr,
    identity: Option<Identity>,
    validity: Option<Validity>,
    /// The client's address may be used towards the application.
    transparent: bool,
    /// The client is a gateway of another network. Looked up for the first request that names another network.
    gateway: OnceCell<bool>,
    _held: Held,
}

/// Parts of the budgets that a tunnel holds until its last stream is over.
struct Held {
    _permit: Permit<IpAddr>,
    _window: Window,
    _descriptors: Descriptors,
}

/// Carries the tunnel to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Inbound);
    let client = connection.client;
    match accept(&context, connection).await {
        Ok((tunnel, server, load)) => {
            streams(Rc::new(tunnel), server).await;
            drop(load);
        }
        Err(e) => report::early(&context, ListenerKind::Hbone, client, &e),
    }
}

type Accepted = (Tunnel, Server<TlsStream<TcpStream>>, Load);

async fn accept(context: &Rc<PodContext>, connection: Connection) -> Result<Accepted, EarlyFailure> {
    let local_addr = canonical(connection.socket.local_addr().map_err(capture::CaptureError::Socket)?);
    accept_at(context, connection, local_addr).await.map_err(|e| EarlyFailure::to(local_addr, e))
}

async fn accept_at(
    context: &Rc<PodContext>,
    connection: Connection,
    local_addr: SocketAddr,
) -> Result<Accepted, Failure> {
    let Connection { mut socket, client, transparent, load, descriptors, .. } = connection;
    // The certificate to show is that of the pod's identity, which only discovery knows.
    let local = capture::local_workload(&context.shared().state, &context.pod).await?;
    let identity = local.identity().ok_or_else(|| unknown(context))?;
    let late = || dial::DialError::HandshakeTimeout(client);
    // One deadline for all that follows: a peer that is slow at every step holds its descriptor no longer than one that
    // stops at the first.
    let handshakes = async {
        // Wait for the first byte before a buffer is made and a permit taken, so that idle connections cost neither.
        socket.readable().await.map_err(capture::CaptureError::Socket)?;
        let hello = timeout(CLIENT_HELLO_TIMEOUT, tls::stream::client_hello(&mut socket)).await.map_err(|_| late())?;
        let hello = hello.map_err(dial::tls_failure)?;
        // Before the permits: a pod that waits for its first certificate (up to 5 s) must not hold those of the worker.
        let certificate = dial::certificate(context, &identity).await?;
        // Held until the peer has proven its identity.
        let _permits = handshake_permits(context, client.ip()).await;
        let config = context.tls.server(&certificate).map_err(|e| dial::DialError::Tls(Arc::new(e)))?;
        let accepted = tls::stream::accept_after(socket, hello, config, tls::peer_leaf).await;
        let (tls, leaf) = accepted.map_err(dial::tls_failure)?;
        let window =
            context.shared().budgets.window(&context.pod.usage, context.shared().tunnels.connection_window_bytes);
        let server = Server::handshake(tls, &window.apply(&context.shared().tunnels)).await;
        let server = server.inspect_err(|e| count_flood(client, leaf.as_ref().and_then(|l| l.identity()), e))?;
        Ok::<_, Failure>((leaf, server, window))
    };
    let (leaf, server, window) = timeout(HANDSHAKE_TIMEOUT, handshakes).await.map_err(|_| late())??;
    // After the handshake, so that connections that never become tunnels take no place of those that are.
    let Some(permit) = context.tunnels.try_acquire(&client.ip()) else {
        budget::exceeded(&context.pod.usage, Resource::Tunnels, Owner::Source(client.ip()));
        return Err(Failure::Budget(Resource::Tunnels));
    };
    let tunnel = Tunnel {
        context: context.clone(),
        client,
        local_addr,
        identity: leaf.as_ref().and_then(|leaf| leaf.identity().cloned()),
        validity: leaf.as_ref().map(Validity::of),
        transparent,
        gateway: OnceCell::new(),
        _held: Held { _permit: permit, _window: window, _descriptors: descriptors },
    };
    Ok((tunnel, server, load))
}

/// Permits for a handshake with `client`: one of its share among the pod's, then one of the pod's share among the
/// worker's. Whoever has used its share waits, and nobody else does.
async fn handshake_permits(context: &PodContext, client: IpAddr) -> (Permit<IpAddr>, Permit<u64>) {
    let source = match context.handshakes.try_acquire(&client) {
        Some(permit) => permit,
        None => {
            budget::exceeded(&context.pod.usage, Resource::Handshakes, Owner::Source(client));
            context.handshakes.acquire(client).await
        }
    };
    let handshakes = &context.worker.handshakes;
    let pod = match handshakes.try_acquire(&context.pod.serial) {
        Some(permit) => permit,
        None => {
            budget::exceeded(&context.pod.usage, Resource::Handshakes, Owner::Pod);
            handshakes.acquire(context.pod.serial).await
        }
    };
    (source, pod)
}

fn unknown(context: &PodContext) -> capture::CaptureError {
    capture::CaptureError::unknown_workload(&context.pod.info)
}

/// Accepts streams until the tunnel ends. When the proxy drains, or the peer's certificate has expired, GOAWAY asks the peer
/// to open no more; a lifetime of the certificate later the streams that are left are cut.
async fn streams(tunnel: Rc<Tunnel>, mut server: Server<TlsStream<TcpStream>>) {
    let mut drain = tunnel.context.shared().drain.clone();
    let mut draining = false;
    let mut expired = false;
    let mut passing = Box::pin(validity::passed(tunnel.validity.map(|v| v.not_after)));
    let limit = REQUESTS_PER_STREAM * tunnel.context.shared().tunnels.max_concurrent_streams as usize;
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
                passing.set(validity::passed(tunnel.validity.map(|v| v.cut_at)));
                server.drain();
                continue;
            }
        };
        match next {
            // Each request that is worked on holds the tunnel, as this function does.
            Ok(Some(request)) if Rc::strong_count(&tunnel) > limit => {
                metrics::counter!(REQUESTS_REFUSED).increment(1);
                budget::exceeded(&tunnel.context.pod.usage, Resource::Requests, Owner::Tunnel(tunnel.client.ip()));
                request.refuse(StatusCode::SERVICE_UNAVAILABLE);
            }
            Ok(Some(request)) => {
                let stream = serve_stream(tunnel.clone(), request);
                tunnel.context.connections.spawn(stream);
            }
            Ok(None) => return,
            Err(e) => {
                count_flood(tunnel.client, tunnel.identity.as_ref(), &e);
                tracing::debug!(peer = %tunnel.client, error = %e, code = e.code(), "tunnel ended");
                return;
            }
        }
    }
}

/// Counts and logs a peer that was disconnected because it sends too many frames of a kind.
fn count_flood(peer: SocketAddr, identity: Option<&Identity>, e: &TunnelError) {
    let Some(flood) = e.flood() else { return };
    metrics::counter!(FLOODS, "kind" => flood.code()).increment(1);
    let identity = identity.map(ToString::to_string).unwrap_or_default();
    tracing::warn!(%peer, identity, kind = flood.code(), error = %e, "closed a tunnel whose peer floods it");
}

async fn serve_stream(tunnel: Rc<Tunnel>, mut request: Request) {
    let _load = tunnel.context.worker.load.add();
    // For the connection to the application.
    let Some(_descriptors) = tunnel.context.shared().budgets.descriptors(&tunnel.context.pod.usage, 1) else {
        budget::exceeded(&tunnel.context.pod.usage, Resource::Descriptors, Owner::Pod);
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let (local, authority, target) = match find(&tunnel, &request) {
        Ok(found) => found,
        Err(e) => {
            let early = EarlyFailure::to(tunnel.local_addr, e);
            report::early(&tunnel.context, ListenerKind::Hbone, tunnel.client, &early);
            return request.refuse(early.failure.status());
        }
    };
    // Before policy and dial: a refusal and a failure count as connections and are logged with both sides.
    let report = Report::open(&tunnel.context, opened(&tunnel, &request, &local, &authority, &target));
    let reached = tokio::select! {
        // First: a request that was given up before its turn makes no connection. Both may be dropped.
        biased;
        () = request.closed() => Err(dial::DialError::ClientGone.into()),
        reached = reach(&tunnel, &local, &target) => reached,
    };
    match reached {
        Ok((registration, app)) => {
            // Answered only now: a client that reads 200 may count on an application that has accepted.
            let Some(stream) = request.accept(answer_headers(&tunnel, &local)) else {
                return report.close(Err(dial::DialError::ClientGone.into()));
            };
            let result = carry(&tunnel, &target, registration, app, stream, &report).await;
            report.close(result);
        }
        Err(e) => {
            request.refuse(e.status());
            report.close(Err(e));
        }
    }
}

/// Takes the first two steps: reads the request, and finds its target.
fn find(tunnel: &Tunnel, request: &Request) -> Result<(Arc<Workload>, Authority, InboundTarget), Failure> {
    if request.method() != Method::CONNECT {
        return Err(Failure::Request(RequestError::Method(request.method().clone())));
    }
    let text = request.authority();
    let authority: Authority =
        text.parse().map_err(|_| RequestError::Authority(text.to_owned())).map_err(Failure::Request)?;
    let shared = tunnel.context.shared();
    let info = &tunnel.context.pod.info;
    // Looked up for each request, not once for the tunnel: addresses and policies may have changed since the handshake.
    let local = shared.state.local(&info.namespace, &info.name, &info.service_account);
    let local = local.ok_or_else(|| unknown(&tunnel.context))?;
    let host = headers::forwarded_host(request.headers());
    let asked = InboundRequest {
        local: &local,
        authority: &authority,
        connection_dst: tunnel.local_addr,
        forwarded_host: host.as_deref(),
        localhost_app_tunnel: shared.localhost_app_tunnel,
    };
    let target = view::inbound(&shared.state, &asked)?;
    Ok((local, authority, target))
}

/// Evaluates policies, then connects to the application.
async fn reach(
    tunnel: &Tunnel,
    local: &Arc<Workload>,
    target: &InboundTarget,
) -> Result<(Registration, TcpStream), Failure> {
    let policies = &tunnel.context.shared().policies;
    let (client, identity) = (tunnel.client.ip(), tunnel.identity.clone());
    // Before the dial: a client that is denied must not learn whether the application listens.
    let mut registration = authorise::inbound(policies, local, client, identity, target.policy_destination)?;
    let source = source(tunnel, target);
    let app = tokio::select! {
        app = dial::application(&tunnel.context, target.dial, source) => app?,
        revoked = registration.revoked() => return Err(revoked.into()),
    };
    Ok((registration, app))
}

/// Returns the address to connect from. A pod that calls itself needs none: it would be its own.
fn source(tunnel: &Tunnel, target: &InboundTarget) -> Option<IpAddr> {
    match target.source {
        SourceAddress::Fixed(ip) => Some(ip),
        SourceAddress::Client => {
            let client = tunnel.client.ip();
            let usable = tunnel.transparent && client != target.dial.ip() && client.is_ipv4() == target.dial.is_ipv4();
            usable.then_some(client)
        }
    }
}

async fn carry(
    tunnel: &Tunnel,
    target: &InboundTarget,
    mut registration: Registration,
    app: TcpStream,
    stream: Stream,
    report: &Report,
) -> Result<(), Failure> {
    let mut app = ResetOnDrop::new(app);
    let carried = async {
        // Before the client's first byte: an application that expects the header reads it from the start of the
        // connection.
        if let Some(destination) = target.proxy_header {
            let header = proxy_header::encode(tunnel.client, destination, tunnel.identity.as_ref());
            app.write_all(&header).await.map_err(relay::RelayError::Send)?;
        }
        relay::inbound(stream, &mut app, &tunnel.context.worker.scratch, report.counts()).await?;
        app.finish();
        Ok(())
    };
    tokio::select! {
        result = carried => result.map_err(Failure::Relay),
        // Dropping the other branch resets the stream and the application's connection.
        revoked = registration.revoked() => Err(revoked.into()),
    }
}

fn answer_headers(tunnel: &Tunnel, local: &Arc<Workload>) -> HeaderMap {
    let wanted = tunnel.context.shared().response_baggage;
    let baggage = wanted.then(|| tunnel.context.description.baggage(local)).flatten();
    baggage.map(|b| (headers::BAGGAGE, b)).into_iter().collect()
}

fn opened(
    tunnel: &Tunnel,
    request: &Request,
    local: &Arc<Workload>,
    authority: &Authority,
    target: &InboundTarget,
) -> Opened {
    let state = &tunnel.context.shared().state;
    let network = &state.config().network;
    let client = tunnel.client.ip();
    let forwarded = request.headers().get(headers::FORWARDED_NETWORK).and_then(|v| v.to_str().ok());
    // Through a gateway the peer's address is the gateway's, so its baggage describes the source. Nobody else's counts: any
    // client could send it.
    let through = forwarded.is_some_and(|n| !n.eq_ignore_ascii_case(network))
        && *tunnel.gateway.get_or_init(|| state.is_network_gateway(client));
    // The gateway is a workload too, and would be taken for the client.
    let source = (!through).then(|| state.workload_by_address(network, client)).flatten();
    let baggage = through.then(|| Baggage::from_headers(request.headers())).flatten();
    Opened {
        direction: Direction::Inbound,
        client: tunnel.client,
        logged_dst: tunnel.local_addr,
        original_dst: headers::forwarded_host(request.headers()),
        actual_dst: target.policy_destination,
        source: Peer {
            workload: source,
            identity: tunnel.identity.clone(),
            baggage: baggage.and_then(|b| tunnel.context.worker.gateway_baggage.admit(b)),
        },
        target: Peer {
            workload: Some(local.clone()),
            identity: tunnel.context.description.identity(local),
            baggage: None,
        },
        service: target.service.clone(),
        authority: Some(authority.to_string()),
        trace: Trace::from_headers(request.headers()),
        protocol: Protocol::Hbone,
    }
}
