//! A CONNECT of a client: its target, and the worker that serves its connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use hbone::{Request, StreamIo};
use http::{HeaderMap, Method, StatusCode};
use model::view::{Authority, WaypointTarget, waypoint_target};

use super::accept::Tunnel;
use super::{Client, Opened};
use crate::inner::{self, ClientIo, channel};
use crate::workers::{Command, Handover};

/// Serves one CONNECT to its end.
pub(super) async fn serve(tunnel: Rc<Tunnel>, request: Request) {
    let context = &tunnel.context;
    let load = context.handles.own().add_load();
    let opened = match open(&tunnel, &request) {
        Ok(opened) => opened,
        Err(status) => {
            let (client, authority) = (tunnel.client, request.authority());
            tracing::debug!(%client, authority, status = status.as_u16(), "CONNECT refused");
            return request.refuse(status);
        }
    };
    // HTTP answers for itself when no endpoint can be reached, so the client need not wait for one.
    let Some(stream) = request.accept(HeaderMap::new()) else { return };
    let Some(other) = context.handles.less_busy() else {
        let io = ClientIo::Stream(StreamIo::new(stream));
        return inner::serve(context.clone(), opened, io).await;
    };
    let (io, far) = channel();
    let handover = Handover { opened: opened.clone(), io, load: other.add_load() };
    match other.try_send(Command::Serve(handover)) {
        Ok(()) => {
            // The tunnel's own work for the stream is small beside HTTP.
            drop(load);
            far.carry(stream).await;
        }
        // Its queue is full, or it has ended: served here after all.
        Err(Command::Serve(_) | Command::Listen { .. }) => {
            let io = ClientIo::Stream(StreamIo::new(stream));
            inner::serve(context.clone(), opened, io).await;
        }
    }
}

/// Finds the target of a request.
///
/// # Errors
/// The status of the refusal.
fn open(tunnel: &Tunnel, request: &Request) -> Result<Opened, StatusCode> {
    if request.method() != Method::CONNECT {
        // As Envoy.
        return Err(StatusCode::NOT_FOUND);
    }
    let text = request.authority();
    let authority: Authority = text.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let shared = &tunnel.context.shared;
    let namespace = tunnel.identity.namespace();
    let target = waypoint_target(&shared.state, &authority, namespace, Some(&shared.identity));
    let target = target.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    if let WaypointTarget::Service { service, port } = &target
        && shared.config.load().port(&service.key(), *port).is_none()
    {
        // A service that has another waypoint, or none: this one must not lend its identity to reach it.
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let ip = tunnel.client.ip();
    let workload = shared.state.workload_by_address(&shared.state.config().network, ip);
    // An address says nothing of who sends; only one that fits what was proved describes the client.
    let workload = workload.filter(|workload| workload.identity().as_ref() == Some(&tunnel.identity));
    let destination = destination(&authority, &target);
    let client = Client { address: tunnel.client, identity: Some(tunnel.identity.clone()), workload };
    Ok(Opened { client: Arc::new(client), target, destination, original_dst: text.into() })
}

/// Address that policies compare: the one that the client asked for, or the first one of the service that it named.
fn destination(authority: &Authority, target: &WaypointTarget) -> SocketAddr {
    match (authority, target) {
        (Authority::Address(address), _) => *address,
        (Authority::Hostname { port, .. }, WaypointTarget::Service { service, .. }) => {
            let first = service.vips.first().map(|vip| vip.address);
            // Of no block that a policy can name.
            SocketAddr::new(first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), *port)
        }
        (Authority::Hostname { port, .. }, WaypointTarget::Workload { .. }) => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), *port)
        }
    }
}
