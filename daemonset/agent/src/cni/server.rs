//! The socket on which CNI plugins ask. The answers are made in `cni`.

use std::path::Path;
use std::sync::Arc;

use contract::cni::{ADD_PATH, ALIVE_PATH, AddResponse, SOCKET_NAME};
use runtime::drain::Watch;
use telemetry::http::{Request, Response, Router, Server, json, text};
use tokio::time::Instant;

use super::RequestHandler;
use crate::metrics;

/// Binds the socket in `directory` (0600) and returns the future that serves it: root only, until the drain's deadline.
///
/// # Errors
/// When directory or socket cannot be made.
pub fn serve(
    directory: &Path,
    handler: RequestHandler,
    drain: Watch,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    std::fs::create_dir_all(directory)?;
    let server = Server::unix(&directory.join(SOCKET_NAME))?.for_root_only();
    let router = Router::new()
        .any(ADD_PATH, move |request| answer(handler.clone(), request))
        .get(ALIVE_PATH, |_| std::future::ready(text(200, "alive\n")));
    Ok(server.serve(Arc::new(router), drain))
}

async fn answer(handler: RequestHandler, request: Request) -> Response {
    // After the router, which finds the path for every method: the answer names the expected one.
    if request.method() != "POST" {
        return text(405, "method not allowed, expected POST\n");
    }
    let (begun, _waiting) = (Instant::now(), metrics::Waiting::begin());
    let AddResponse { outcome, reason } = handler.add(request.body()).await;
    let status = outcome.status();
    metrics::cni_request(outcome, begun.elapsed());
    let body = String::from_utf8_lossy(request.body());
    tracing::debug!(?outcome, reason, %body, "a CNI plugin was answered");
    json(status, &AddResponse { outcome, reason })
}
