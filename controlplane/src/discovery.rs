//! Discovery and certificates on one port, for proxies.

use std::sync::Arc;
use std::time::Duration;

use ca_server::{Authenticator, CurrentIssuer};
use graph::Mesh;
use runtime::drain;
use tls::control_plane::{Acceptor, Limits};
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::acks::Acks;
use crate::admin::Pages;
use crate::certificates::Authority;
use crate::config::Config;
use crate::debug;
use crate::replicas::{self, Replicas};

/// HTTP/2 PING to proxies: how often, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls at the same time on one connection. A node proxy has one stream, and up to eight requests for certificates.
const MAX_CALLS: u32 = 64;

/// Size of the headers of a call, with its token.
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// Time over which streams end, so that the proxies of a large mesh do not come to another replica together.
pub(crate) const SPREAD: Duration = Duration::from_secs(2);

/// Settings of discovery.
pub(crate) fn options(config: &Config, pages: &Pages, acks: Acks, drain: drain::Watch) -> xds_server::Options {
    let proxies = pages.proxies.clone();
    let report = move |report| {
        acks.on_report(&report);
        proxies.take(report);
    };
    let Mesh { root_namespace, cluster_id, .. } = config.mesh.clone();
    let debug = debug::over_discovery(pages.clone(), root_namespace, cluster_id, config.source.replica());
    let is_directory = config.source.is_directory();
    let spread = if is_directory { Duration::ZERO } else { SPREAD };
    xds_server::Options {
        debug: Some(debug),
        spread,
        nodeless: is_directory,
        ..xds_server::Options::new(Arc::new(report), drain)
    }
}

/// Parts that answer proxies.
pub(crate) struct Services {
    pub(crate) acceptor: Acceptor,
    pub(crate) listener: TcpListener,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) issuer: CurrentIssuer,
    pub(crate) authority: Authority,
    pub(crate) pages: Pages,
    pub(crate) options: xds_server::Options,
    /// `None`: there is no other replica.
    pub(crate) replicas: Option<(Replicas, Acks)>,
    pub(crate) drain: drain::Watch,
}

/// Answers proxies until the drain: streams end in good order, requests for certificates finish.
pub(crate) async fn serve(services: Services) {
    let Services { acceptor, listener, authenticator, issuer, authority, pages, options, replicas, mut drain } =
        services;
    let replicas = replicas.map(|(replicas, acks)| replicas::service(replicas, acks, drain.clone()));
    // A failure leaves the limit unknown, not the connections without one.
    let descriptors = runtime::sys::raise_nofile().unwrap_or_else(|error| {
        tracing::warn!(%error, code = "nofile", "failed to raise RLIMIT_NOFILE; the usual limit of 1024 is assumed");
        Some(1024)
    });
    let limits = Limits::with_descriptors(descriptors);
    tracing::info!(connections = limits.total, unproved = limits.unproved, "limits of connections");
    let router = Server::builder()
        .max_concurrent_streams(Some(MAX_CALLS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        // A node that has vanished sends nothing: without pings its stream would count as connected, and its policies
        // as acknowledged.
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        // Before all services: no request reaches one of them without a caller.
        .layer(ca_server::authenticate(authenticator))
        .add_service(xds_server::service(pages.cache, options))
        .add_service(ca_server::service(issuer, Arc::new(authority)))
        .add_optional_service(replicas);
    let mut expired = drain.clone();
    let serving = router.serve_with_incoming_shutdown(xds_server::incoming(acceptor, listener, limits), async move {
        drain.started().await;
    });
    let result = tokio::select! {
        result = serving => result,
        // Whoever has not finished by now is cut off; nothing of it is kept.
        () = expired.expired() => return,
    };
    if let Err(error) = result {
        tracing::error!(%error, code = "serving_ended", "discovery server failed");
    }
}
