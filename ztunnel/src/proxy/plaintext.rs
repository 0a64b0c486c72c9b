//! The steps of a connection that comes to the pod outside of a tunnel (listener 15006).

use super::capture;
use super::context::PodContext;
use super::guarded::Guarded;
use super::report::{Direction, Opened, Peer, Report};
use super::{Connection, Failure, authorise, dial, relay, report};
use model::Workload;
use model::view;
use policy::Registration;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Carries the connection to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Inbound);
    let client = connection.client;
    let mut destination = report::listener_of(&connection);
    if let Err(e) = steps(&context, connection, &mut destination).await {
        report::early(&context, Direction::Inbound, client, destination, &e);
    }
}

/// Fails only before there is a report.
async fn steps(context: &Rc<PodContext>, connection: Connection, destination: &mut SocketAddr) -> Result<(), Failure> {
    let Connection { socket, client: peer, transparent, load: _load, descriptors: _descriptors, kind } = connection;
    let captured = capture::redirected(context, kind, socket, peer)?;
    *destination = captured.destination;
    let local = capture::local_workload(&context.shared().state, &context.pod).await?;
    let report = Report::open(context, opened(context, &captured, &local));
    let policies = &context.shared().policies;
    let allowed = authorise::inbound(policies, &local, captured.client.ip(), None, captured.destination);
    let result = match allowed {
        Ok(registration) => carry(context, captured, registration, transparent, &report).await,
        Err(denied) => Err(denied.into()),
    };
    report.close(result);
    Ok(())
}

async fn carry(
    context: &PodContext,
    captured: capture::Captured,
    mut registration: Registration,
    transparent: bool,
    report: &Report,
) -> Result<(), Failure> {
    let to = captured.destination;
    let client = captured.client.ip();
    let source = (transparent && client != to.ip() && client.is_ipv4() == to.is_ipv4()).then_some(client);
    let mut socket = captured.socket;
    let carried = async {
        let mut app = Guarded::new(dial::for_client(&socket, dial::application(context, to, source)).await?);
        relay::plain(&mut socket, &mut app, &context.worker.scratch, report.counts()).await?;
        socket.settle();
        app.settle();
        Ok(())
    };
    tokio::select! {
        result = carried => result,
        // Dropping the other branch resets both connections.
        revoked = registration.revoked() => Err(revoked.into()),
    }
}

fn opened(context: &PodContext, captured: &capture::Captured, local: &Arc<Workload>) -> Opened {
    let state = &context.shared().state;
    let source = state.workload_by_address(&state.config().network, captured.client.ip());
    Opened {
        direction: Direction::Inbound,
        client: captured.client,
        destination: captured.destination,
        listed: captured.destination,
        original: None,
        source: Peer { workload: source, identity: None, baggage: None },
        target: Peer { workload: Some(local.clone()), identity: context.description.identity(local), baggage: None },
        service: view::destination_service(state, local, captured.destination),
        authority: None,
        trace: None,
        protocol: "TCP",
    }
}
