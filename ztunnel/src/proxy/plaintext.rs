//! The steps of a connection that comes to the pod outside of a tunnel (listener 15006).

use super::capture::{self, Captured};
use super::context::PodContext;
use super::report::{Opened, Peer, Report};
use super::reset_on_drop::ResetOnDrop;
use super::{Connection, EarlyFailure, Failure, authorise, dial, relay, report};
use model::Workload;
use model::view;
use policy::Registration;
use std::rc::Rc;
use std::sync::Arc;
use telemetry::{Direction, Protocol};

/// Carries the connection to its end.
pub async fn serve(context: Rc<PodContext>, connection: Connection) {
    let _open = context.worker.socket_open(Direction::Inbound);
    let (client, kind) = (connection.client, connection.kind);
    if let Err(e) = steps(&context, connection).await {
        report::early(&context, kind, client, &e);
    }
}

/// Fails only before there is a report.
async fn steps(context: &Rc<PodContext>, connection: Connection) -> Result<(), EarlyFailure> {
    let Connection { socket, client, transparent, load: _load, descriptors: _descriptors, kind } = connection;
    // First, because every failure from here on is reported with the address that the client wanted.
    let captured = capture::captured(context, kind, socket, client)?;
    let local = capture::local_workload(&context.shared().state, &context.pod).await;
    let local = local.map_err(|e| EarlyFailure::to(captured.original_dst, e))?;
    let report = Report::open(context, opened(context, &captured, &local));
    // The report is there already: a refusal counts as a connection and is logged with both sides. No identity is
    // proven in plaintext, so no rule that requires a principal or namespace matches here.
    let policies = &context.shared().policies;
    let allowed = authorise::inbound(policies, &local, client.ip(), None, captured.original_dst);
    let result = match allowed {
        Ok(registration) => carry(context, captured, registration, transparent, &report).await,
        Err(denied) => Err(denied.into()),
    };
    report.close(result);
    Ok(())
}

async fn carry(
    context: &PodContext,
    captured: Captured,
    mut registration: Registration,
    transparent: bool,
    report: &Report,
) -> Result<(), Failure> {
    // The application is reached at the address that the client connected to.
    let next_hop = captured.original_dst;
    let client = captured.client.ip();
    // The application sees its client's own address where that is possible: not for a pod that calls itself, as the
    // address would be that of the application too, and not across families.
    let is_usable = transparent && client != next_hop.ip() && client.is_ipv4() == next_hop.is_ipv4();
    let source = is_usable.then_some(client);
    let mut socket = captured.socket;
    // Inside of the select below, so that a policy that changes cuts the connection also while it is being dialed.
    let carried = async {
        let mut app = ResetOnDrop::new(dial::for_client(&socket, dial::application(context, next_hop, source)).await?);
        relay::plain(&mut socket, &mut app, &context.worker.scratch, report.counts()).await?;
        socket.finish();
        app.finish();
        Ok(())
    };
    tokio::select! {
        result = carried => result,
        // Dropping the other branch resets both connections.
        revoked = registration.revoked() => Err(revoked.into()),
    }
}

fn opened(context: &PodContext, captured: &Captured, local: &Arc<Workload>) -> Opened {
    let state = &context.shared().state;
    // Whom discovery knows by the client's address. That is good enough for metrics and proves nothing: policy gets no
    // identity.
    let source = state.workload_by_address(&state.config().network, captured.client.ip());
    Opened {
        direction: Direction::Inbound,
        client: captured.client,
        logged_dst: captured.original_dst,
        original_dst: None,
        actual_dst: captured.original_dst,
        source: Peer { workload: source, identity: None, baggage: None },
        target: Peer { workload: Some(local.clone()), identity: context.description.identity(local), baggage: None },
        service: view::destination_service(state, local, captured.original_dst),
        authority: None,
        trace: None,
        protocol: Protocol::Tcp,
    }
}
