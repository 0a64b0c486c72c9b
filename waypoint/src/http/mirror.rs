//! Copies of requests for other destinations. Nobody waits for their answers, and a mirror that is slow is cut.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use model::Text;
use route::Mirror;
use tokio::time::timeout;

use super::body::{RequestBody, Source};
use super::outgoing::{Outgoing, Template};
use crate::context::WorkerContext;
use crate::upstream::{HttpVersion, Lease, Upstream};

/// Time for a copy and its answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Copies under way on one worker; further ones are not sent.
const MOST: usize = 1024;
/// Number of copies, by outcome.
const MIRRORS: &str = "strake_mirrored_requests_total";

/// Sends a copy of a request to each of `mirrors`.
pub(super) fn start<'a>(
    context: &Rc<WorkerContext>,
    mirrors: impl Iterator<Item = &'a Mirror>,
    namespace: &Text,
    version: HttpVersion,
    request: &Outgoing,
    source: Option<&Source>,
) {
    for mirror in mirrors {
        let destination = &mirror.destination;
        let set = context.endpoints.get(&destination.host, namespace, destination.port);
        // The labels of a subset are not known here.
        let chosen = set.balancer.choose(&set.upstreams, &[]).filter(|_| destination.subset.is_none());
        let (Some(upstream), Ok(template)) = (chosen, copy(request).template(version)) else {
            count("failed");
            continue;
        };
        if context.mirrors.count() >= MOST {
            count("dropped");
            continue;
        }
        let body = source.map_or(RequestBody::EMPTY, RequestBody::for_mirror);
        context.mirrors.spawn(run(context.clone(), upstream.clone(), version, template, body));
    }
}

fn copy(request: &Outgoing) -> Outgoing {
    // A second WebSocket that nobody reads would stay open.
    Outgoing { is_upgrade: false, ..request.clone() }
}

async fn run(
    context: Rc<WorkerContext>,
    upstream: Rc<Upstream>,
    version: HttpVersion,
    template: Template,
    body: RequestBody,
) {
    let sent = async {
        let mut lease = Lease::acquire(&context, &upstream, version).await.ok()?;
        let response = lease.send(template.request(1, body)).await.ok()?;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.ok()?;
        }
        lease.finish();
        Some(())
    };
    count(match timeout(TIMEOUT, sent).await {
        Ok(Some(())) => "sent",
        Ok(None) | Err(_) => "failed",
    });
}

fn count(outcome: &'static str) {
    metrics::counter!(MIRRORS, "outcome" => outcome).increment(1);
}
