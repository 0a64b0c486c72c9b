//! The steps of a connection that an application of the pod opens (listener 15001).

use super::capture;
use super::context::PodContext;
use super::guarded::Guarded;
use super::report::{Direction, Opened, Peer, Report};
use super::resolve::{self, Resolved};
use super::{Connection, Failure, dial, relay, report};
use hbone::headers::{self, Trace};
use http::{HeaderMap, header};
use model::Workload;
use model::view::{Hbone, RouteKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Carries the connection to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Outbound);
    let client = connection.client;
    let mut destination = report::listener_of(&connection);
    if let Err(e) = steps(&context, connection, &mut destination).await {
        report::early(&context, Direction::Outbound, client, destination, &e);
    }
}

/// Fails only before there is a report.
async fn steps(context: &Rc<PodContext>, connection: Connection, destination: &mut SocketAddr) -> Result<(), Failure> {
    let Connection { socket, client: peer, load: _load, mut descriptors, kind, .. } = connection;
    let mut captured = capture::redirected(context, kind, socket, peer)?;
    *destination = captured.destination;
    let shared = context.shared();
    let source = capture::local_workload(&shared.state, &context.pod).await?;
    let resolved = resolve::outbound(&shared.state, &shared.names, &source, captured.destination).await?;

    let trace = Trace::random();
    let report = Report::open(context, opened(context, &captured, &source, &resolved, trace));
    let client = captured.client;
    let app = &mut captured.socket;
    let result = match &resolved.route.kind {
        RouteKind::Hbone(hbone) => {
            // The tunnel counts for itself.
            descriptors.keep(1);
            let leg = Leg { source: &source, client, resolved: &resolved, trace };
            through_tunnel(context, app, leg, hbone, &report).await
        }
        RouteKind::Tcp | RouteKind::Passthrough => through_tcp(context, app, resolved.to, &report).await,
        RouteKind::DoubleHbone(_) => Err(other_network(&resolved)),
    };
    if result.is_ok() {
        app.settle();
    }
    report.close(result);
    Ok(())
}

/// One connection on its way out.
struct Leg<'a> {
    source: &'a Arc<Workload>,
    client: SocketAddr,
    resolved: &'a Resolved,
    trace: Trace,
}

async fn through_tunnel(
    context: &PodContext,
    app: &mut tokio::net::TcpStream,
    leg: Leg<'_>,
    hbone: &Hbone,
    report: &Report,
) -> Result<(), Failure> {
    let identity = context.description.identity(leg.source).ok_or_else(|| capture::CaptureError::UnknownWorkload {
        service_account: leg.source.service_account.to_string(),
        namespace: leg.source.namespace.to_string(),
        name: leg.source.name.to_string(),
    })?;
    let key = dial::key(identity, leg.client.ip(), leg.resolved.to, hbone.expected.clone());
    let dial = dial::tunnel(context, &key, &hbone.authority, || request_headers(context, &leg));
    let accepted = dial::for_client(app, dial).await?;
    relay::outbound(app, accepted.stream, &context.worker.scratch, report.counts()).await?;
    Ok(())
}

async fn through_tcp(
    context: &PodContext,
    app: &mut tokio::net::TcpStream,
    to: SocketAddr,
    report: &Report,
) -> Result<(), Failure> {
    let mut server = Guarded::new(dial::for_client(app, dial::plain(context, to)).await?);
    relay::plain(app, &mut server, &context.worker.scratch, report.counts()).await?;
    server.settle();
    Ok(())
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
    captured: &capture::Captured,
    source: &Arc<Workload>,
    resolved: &Resolved,
    trace: Trace,
) -> Opened {
    let (hbone, protocol) = match &resolved.route.kind {
        RouteKind::Hbone(h) => (Some(h.authority.clone()), "HBONE"),
        RouteKind::DoubleHbone(d) => (Some(d.outer.authority.clone()), "DOUBLEHBONE"),
        RouteKind::Tcp | RouteKind::Passthrough => (None, "TCP"),
    };
    Opened {
        direction: Direction::Outbound,
        client: captured.client,
        destination: resolved.to,
        listed: resolved.to,
        original: Some(captured.destination.to_string()),
        source: Peer {
            workload: Some(source.clone()),
            identity: hbone.as_ref().and_then(|_| context.description.identity(source)),
            baggage: None,
        },
        target: Peer {
            workload: resolved.route.workload.clone(),
            identity: resolved.route.workload.as_ref().and_then(|w| w.identity()),
            baggage: None,
        },
        service: resolved.route.service.clone(),
        authority: hbone,
        trace: Some(trace),
        protocol,
    }
}
