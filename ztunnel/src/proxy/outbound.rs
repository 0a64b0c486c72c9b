//! The steps of a connection that an application of the pod opens (listener 15001).

use super::attempts::Attempts;
use super::capture::{self, CaptureError, Captured};
use super::context::PodContext;
use super::dial::TunnelKey;
use super::report::{Opened, Peer, Report};
use super::reset_on_drop::ResetOnDrop;
use super::resolve::{self, Resolved};
use super::{Connection, EarlyFailure, Failure, dial, relay, report};
use hbone::Accepted;
use hbone::headers::{self, Trace};
use http::{HeaderMap, header};
use model::Workload;
use model::view::{Hbone, RouteKind};
use proxy_core::budget::Descriptors;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use telemetry::{Direction, Protocol};
use tokio::net::TcpStream;

/// Carries the connection to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Outbound);
    let (client, kind) = (connection.client, connection.kind);
    if let Err(e) = steps(&context, connection).await {
        report::early(&context, kind, client, &e);
    }
}

/// Fails only before there is a report.
async fn steps(context: &Rc<PodContext>, connection: Connection) -> Result<(), EarlyFailure> {
    let Connection { socket, client, load: _load, mut descriptors, kind, .. } = connection;
    // First, because every failure from here on is reported with the address that the client wanted.
    let mut captured = capture::captured(context, kind, socket, client)?;
    let original_dst = captured.original_dst;
    let shared = context.shared();
    // A pod may connect before discovery has told of it: without its workload neither its network nor its identity is
    // known, and plaintext in place of a tunnel is not an option. So the connection waits.
    let source = capture::local_workload(&shared.state, &context.pod).await;
    let source = source.map_err(|e| EarlyFailure::to(original_dst, e))?;
    let failing = &context.worker.failing_endpoints;
    let aside = failing.set_aside(Instant::now());
    let resolved = resolve::outbound(context, &source, original_dst, &aside).await;
    let mut resolved = resolved.map_err(|e| EarlyFailure::to(original_dst, e))?;

    let mut attempts = Attempts::new(shared.connect_retries);
    // Both proxies log it: one grep finds both lines of a connection, and those of its attempts.
    let trace = Trace::random();
    loop {
        // From here on the report is made however the connection ends, also when this task is cut.
        let report = Report::open(context, opened(context, &captured, &source, &resolved, trace));
        let leg = Leg { source: &source, client, resolved: &resolved, trace };
        let result = carry(context, &mut captured.socket, leg, &mut descriptors, &report).await;
        let another = match (&result, &resolved.route.workload) {
            (Err(failure), Some(endpoint)) => {
                failing.failed(&endpoint.uid, failure, Instant::now());
                match attempts.after(&endpoint.uid, failure) {
                    // Boxed, as it is rare.
                    Some(tried) => Box::pin(resolve::another(context, &source, original_dst, tried)).await,
                    None => None,
                }
            }
            _ => None,
        };
        let Some(another) = another else {
            // After an error the socket stays unfinished, and dropping it resets the application's connection.
            if result.is_ok() {
                captured.socket.finish();
            }
            report.close(result);
            return Ok(());
        };
        metrics::counter!("strake_connect_retries_total").increment(1);
        // The attempt is a connection of its own in metrics and log, with the endpoint that failed.
        report.close(result);
        resolved = another;
    }
}

/// Properties of the connection to the next hop.
struct Leg<'a> {
    source: &'a Arc<Workload>,
    client: SocketAddr,
    resolved: &'a Resolved,
    trace: Trace,
}

impl Leg<'_> {
    /// Notes that the endpoint could be connected to.
    fn reached(&self, context: &PodContext) {
        if let Some(endpoint) = &self.resolved.route.workload {
            context.worker.failing_endpoints.succeeded(&endpoint.uid);
        }
    }
}

/// Connects to the next hop and relays until the end.
async fn carry(
    context: &PodContext,
    app: &mut TcpStream,
    leg: Leg<'_>,
    descriptors: &mut Descriptors,
    report: &Report,
) -> Result<(), Failure> {
    match &leg.resolved.route.kind {
        RouteKind::Hbone(hbone) => {
            let tunnel = open_tunnel(context, app, &leg, hbone).await?;
            leg.reached(context);
            // The tunnel holds a descriptor of its own.
            descriptors.keep(1);
            relay::outbound(app, tunnel.stream, &context.worker.scratch, report.counts()).await?;
        }
        // Discovery has been asked about an address that was unknown: `resolve`.
        RouteKind::Tcp | RouteKind::Passthrough | RouteKind::Unknown => {
            let dialled = dial::for_client(app, dial::plain(context, leg.resolved.next_hop)).await?;
            leg.reached(context);
            let mut server = ResetOnDrop::new(dialled);
            relay::plain(app, &mut server, &context.worker.scratch, report.counts()).await?;
            server.finish();
        }
        // `view::outbound` refuses these already; kept so that a new kind of route cannot be forgotten here.
        RouteKind::DoubleHbone(_) => return Err(other_network(leg.resolved)),
    }
    Ok(())
}

async fn open_tunnel(context: &PodContext, app: &TcpStream, leg: &Leg<'_>, hbone: &Hbone) -> Result<Accepted, Failure> {
    let identity = context.description.identity(leg.source);
    let key = TunnelKey {
        source: identity.ok_or_else(|| CaptureError::unknown_workload(&context.pod.info))?,
        expected: hbone.expected.as_slice().into(),
        next_hop: leg.resolved.next_hop,
        client: leg.client.ip(),
    };
    // A closure, because a stream that the peer has not processed is asked for a second time.
    let dial = dial::tunnel(context, &key, &hbone.authority, || request_headers(context, leg));
    Ok(dial::for_client(app, dial).await?)
}

fn other_network(resolved: &Resolved) -> Failure {
    let workload = resolved.route.workload.as_ref();
    let error = model::view::RouteError::OtherNetwork {
        uid: workload.map(|w| w.uid.clone()).unwrap_or_default(),
        network: workload.map(|w| w.network.clone()).unwrap_or_default(),
    };
    Failure::Resolve(error.into())
}

fn request_headers(context: &PodContext, leg: &Leg<'_>) -> HeaderMap {
    let service = leg.resolved.route.service.as_deref().map(|s| s.hostname.as_str());
    let mut map = HeaderMap::with_capacity(3);
    if let Some(baggage) = context.description.baggage(leg.source) {
        map.insert(headers::BAGGAGE, baggage);
    }
    if let Some(forwarded) = headers::forwarded(leg.client, service) {
        map.insert(header::FORWARDED, forwarded);
    }
    map.insert(headers::TRACEPARENT, leg.trace.to_header());
    map
}

fn opened(
    context: &PodContext,
    captured: &Captured,
    source: &Arc<Workload>,
    resolved: &Resolved,
    trace: Trace,
) -> Opened {
    // Metrics and access log take a connection with an authority for one in mutual TLS.
    let (authority, protocol) = match &resolved.route.kind {
        RouteKind::Hbone(h) => (Some(h.authority.clone()), Protocol::Hbone),
        RouteKind::DoubleHbone(d) => (Some(d.outer.authority.clone()), Protocol::DoubleHbone),
        RouteKind::Tcp | RouteKind::Passthrough | RouteKind::Unknown => (None, Protocol::Tcp),
    };
    Opened {
        direction: Direction::Outbound,
        client: captured.client,
        logged_dst: resolved.next_hop,
        original_dst: Some(captured.original_dst.to_string()),
        actual_dst: resolved.next_hop,
        source: Peer {
            workload: Some(source.clone()),
            // Without a tunnel no identity is shown to anybody.
            identity: authority.as_ref().and_then(|_| context.description.identity(source)),
            baggage: None,
        },
        target: Peer {
            workload: resolved.route.workload.clone(),
            identity: resolved.route.workload.as_ref().and_then(|w| w.identity()),
            baggage: None,
        },
        service: resolved.route.service.clone(),
        authority,
        trace: Some(trace),
        protocol,
    }
}
