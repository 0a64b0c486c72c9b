//! The steps of a tunnel from another proxy, and of each connection on it (listener 15008).

use super::context::PodContext;
use super::failure::RequestError;
use super::guarded::Guarded;
use super::report::{Direction, Opened, Peer, Report};
use super::{Connection, Failure, authorise, capture, dial, proxy_header, relay, report};
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
use tls::stream::TlsStream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a peer may take for its first message, from the first byte on. It fits in two packets.
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer may take for TLS and the start of HTTP/2.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests of one tunnel that may be worked on, per stream that its peer is allowed. A peer may reset a stream and open
/// another before we have noticed; beyond this it is answered 503 at once.
const REQUESTS_PER_STREAM: usize = 2;
/// Tunnels that were closed because their peer sends more frames of a kind than anybody needs.
const FLOODS: &str = "strake_hbone_floods_total";
/// Requests that were refused so.
const REQUESTS_REFUSED: &str = "strake_hbone_requests_refused_total";

/// Tunnels whose peer's certificate has expired while they were open.
const EXPIRED: &str = "strake_tunnels_expired_total";

/// What all streams of a tunnel have in common.
struct Tunnel {
    context: Rc<PodContext>,
    client: SocketAddr,
    destination: SocketAddr,
    identity: Option<Identity>,
    validity: Option<Validity>,
    /// May the client's address be used towards the application?
    transparent: bool,
    /// Is the client a gateway of another network? Found out when it matters.
    gateway: OnceCell<bool>,
    _held: Held,
}

/// What a tunnel holds of the budgets until its last stream is over.
struct Held {
    _permit: Permit<IpAddr>,
    _window: Window,
    _descriptors: Descriptors,
}

/// Carries the tunnel to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Inbound);
    let (client, mut destination) = (connection.client, report::listener_of(&connection));
    match accept(&context, connection, &mut destination).await {
        Ok((tunnel, server, load)) => {
            streams(Rc::new(tunnel), server).await;
            drop(load);
        }
        Err(e) => report::early(&context, Direction::Inbound, client, destination, &e),
    }
}

type Accepted = (Tunnel, Server<TlsStream<TcpStream>>, Load);

async fn accept(
    context: &Rc<PodContext>,
    connection: Connection,
    destination: &mut SocketAddr,
) -> Result<Accepted, Failure> {
    let Connection { mut socket, client: peer, transparent, load, descriptors, .. } = connection;
    *destination = canonical(socket.local_addr().map_err(capture::CaptureError::Socket)?);
    let local = capture::local_workload(&context.shared().state, &context.pod).await?;
    let identity = local.identity().ok_or_else(|| unknown(context))?;
    let late = || dial::DialError::HandshakeTimeout(peer);
    let handshakes = async {
        // A client that says nothing has no buffer yet.
        socket.readable().await.map_err(capture::CaptureError::Socket)?;
        let hello = timeout(CLIENT_HELLO_TIMEOUT, tls::stream::client_hello(&mut socket)).await.map_err(|_| late())?;
        let hello = hello.map_err(dial::tls_failure)?;
        // Before the permits: a pod that waits for its first certificate must not hold those of the worker meanwhile.
        let certificate = dial::certificate(context, &identity).await?;
        // Held until the peer has proven who it is.
        let _permits = handshake_permits(context, peer.ip()).await;
        let config = context.tls.server(&certificate).map_err(|e| dial::DialError::Tls(Arc::new(e)))?;
        let accepted = tls::stream::accept_after(socket, hello, config, tls::peer_leaf).await;
        let (tls, leaf) = accepted.map_err(dial::tls_failure)?;
        let window =
            context.shared().budgets.window(&context.pod.usage, context.shared().tunnels.connection_window_bytes);
        let server = Server::handshake(tls, &window.apply(&context.shared().tunnels)).await;
        let server = server.inspect_err(|e| count_flood(peer, leaf.as_ref().and_then(|l| l.identity()), e))?;
        Ok::<_, Failure>((leaf, server, window))
    };
    let (leaf, server, window) = timeout(HANDSHAKE_TIMEOUT, handshakes).await.map_err(|_| late())??;
    let Some(permit) = context.tunnels.try_acquire(&peer.ip()) else {
        budget::exceeded(&context.pod.usage, Resource::Tunnels, Owner::Source(peer.ip()));
        return Err(Failure::Budget(Resource::Tunnels));
    };
    let tunnel = Tunnel {
        context: context.clone(),
        client: peer,
        destination: *destination,
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
    let info = context.pod.info.clone();
    capture::CaptureError::UnknownWorkload {
        service_account: info.service_account,
        namespace: info.namespace,
        name: info.name,
    }
}

/// Accepts streams until the tunnel ends. When the proxy drains, or the peer's certificate has expired, the peer is told to
/// open no more; a lifetime of the certificate later what is left of them is cut.
async fn streams(tunnel: Rc<Tunnel>, mut server: Server<TlsStream<TcpStream>>) {
    let mut drain = tunnel.context.shared().drain.clone();
    let mut draining = false;
    let mut expired = false;
    let mut passing = Box::pin(validity::passed(tunnel.validity.map(|v| v.not_after)));
    let limit = REQUESTS_PER_STREAM * tunnel.context.shared().tunnels.max_concurrent_streams as usize;
    loop {
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
            // Each request that is worked on holds the tunnel, as we do.
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

/// Counts and logs a peer that was disconnected because of what it sends too much of.
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
            report::early(&tunnel.context, Direction::Inbound, tunnel.client, tunnel.destination, &e);
            return request.refuse(e.status());
        }
    };
    let report = Report::open(&tunnel.context, opened(&tunnel, &request, &local, &authority, &target));
    let reached = tokio::select! {
        // First: a request that was given up before its turn makes no connection. Both may be dropped.
        biased;
        () = request.closed() => Err(dial::DialError::ClientGone.into()),
        reached = reach(&tunnel, &local, &target) => reached,
    };
    match reached {
        Ok((registration, app)) => {
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

/// The first two steps: what is asked, and where it leads.
fn find(tunnel: &Tunnel, request: &Request) -> Result<(Arc<Workload>, Authority, InboundTarget), Failure> {
    if request.method() != Method::CONNECT {
        return Err(Failure::Request(RequestError::Method(request.method().clone())));
    }
    let text = request.authority();
    let authority: Authority =
        text.parse().map_err(|_| RequestError::Authority(text.to_owned())).map_err(Failure::Request)?;
    let shared = tunnel.context.shared();
    let info = &tunnel.context.pod.info;
    let local = shared.state.local(&info.namespace, &info.name, &info.service_account);
    let local = local.ok_or_else(|| unknown(&tunnel.context))?;
    let host = headers::forwarded_host(request.headers());
    let asked = InboundRequest {
        local: &local,
        authority: &authority,
        connection_dst: tunnel.destination,
        forwarded_host: host.as_deref(),
        localhost_app_tunnel: shared.localhost_app_tunnel,
    };
    let target = view::inbound(&shared.state, &asked)?;
    Ok((local, authority, target))
}

/// Asks the policies, then connects to the application.
async fn reach(
    tunnel: &Tunnel,
    local: &Arc<Workload>,
    target: &InboundTarget,
) -> Result<(Registration, TcpStream), Failure> {
    let policies = &tunnel.context.shared().policies;
    let (client, identity) = (tunnel.client.ip(), tunnel.identity.clone());
    let mut registration = authorise::inbound(policies, local, client, identity, target.policy_destination)?;
    let source = source(tunnel, target);
    let app = tokio::select! {
        app = dial::application(&tunnel.context, target.dial, source) => app?,
        revoked = registration.revoked() => return Err(revoked.into()),
    };
    Ok((registration, app))
}

/// The address to connect from. A pod that calls itself needs none: it would be its own.
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
    let mut app = Guarded::new(app);
    let carried = async {
        if let Some(destination) = target.proxy_header {
            let header = proxy_header::encode(tunnel.client, destination, tunnel.identity.as_ref());
            app.write_all(&header).await.map_err(relay::RelayError::Send)?;
        }
        relay::inbound(stream, &mut app, &tunnel.context.worker.scratch, report.counts()).await?;
        app.settle();
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
    // Through a gateway the peer's address is the gateway's; nobody else may say who it is.
    let through = forwarded.is_some_and(|n| !n.eq_ignore_ascii_case(network))
        && *tunnel.gateway.get_or_init(|| state.is_network_gateway(client));
    let source = (!through).then(|| state.workload_by_address(network, client)).flatten();
    let baggage = through.then(|| Baggage::from_headers(request.headers())).flatten();
    Opened {
        direction: Direction::Inbound,
        client: tunnel.client,
        destination: tunnel.destination,
        listed: target.policy_destination,
        original: headers::forwarded_host(request.headers()),
        source: Peer {
            workload: source,
            identity: tunnel.identity.clone(),
            baggage: baggage.and_then(|b| tunnel.context.worker.foreign.admit(b)),
        },
        target: Peer {
            workload: Some(local.clone()),
            identity: tunnel.context.description.identity(local),
            baggage: None,
        },
        service: target.service.clone(),
        authority: Some(authority.to_string()),
        trace: Trace::from_headers(request.headers()),
        protocol: "HBONE",
    }
}
