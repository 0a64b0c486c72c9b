//! Starts the parts and ends them together.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_server::{Authenticator, CurrentIssuer, IssuerError, SignError, TokensError};
use compile::Compiler;
use futures::FutureExt as _;
use kube_cluster::{ConfigError, ConnectError, Election};
use kube_types::{Source, Status};
use manifests::SourceError;
use runtime::drain;
use telemetry::http;
use telemetry::metrics::Recorder;
use telemetry::readiness::Readiness;
use tls::TlsError;
use tls::control_plane::{Acceptor, Limits};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use xds_server::Cache;

use crate::acks::Acks;
use crate::admin::Pages;
use crate::certificates::{self, Authority, Certificates, Rules, SecretsError};
use crate::conditions;
use crate::config::Config;
use crate::pipeline::Pipeline;
use crate::proxies::Proxies;
use crate::reports::Reports;
use crate::source::Opened;

/// HTTP/2 PING to proxies: how often, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls at the same time on one connection. A node proxy has one stream, and up to eight requests for certificates.
const MAX_CALLS: u32 = 64;

/// Size of the headers of a call, with its token.
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// Reason why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("API server")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Cluster(#[from] ConfigError),
    #[error("certificate authority")]
    Issuer(#[from] IssuerError),
    #[error("serving certificate")]
    Serving(#[from] SignError),
    #[error("serving certificate")]
    Tls(#[from] TlsError),
    #[error("certificate authority")]
    Secrets(#[from] SecretsError),
    #[error("node tokens")]
    Tokens(#[from] TokensError),
    /// A setting that needs a cluster, with a directory as source.
    #[error("{0} needs --source cluster")]
    NoApiServer(&'static str),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot make {path}")]
    AdminSocket { path: PathBuf, source: io::Error },
}

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    monitoring: SocketAddr,
    /// Tasks that end with the drain.
    serving: JoinSet<()>,
    /// Tasks that are ended with the program.
    working: JoinSet<()>,
    /// Released at the end, so that another replica writes statuses at once.
    election: Option<Election>,
}

impl Control {
    /// Starts all parts. Proxies are answered once the first state is read; `drain` ends everything.
    pub async fn start(config: Config, recorder: Option<Recorder>, drain: drain::Watch) -> Result<Self, StartError> {
        // First what can fail because of a file or a flag, so that a mistake ends the start before anything is served.
        let server = config.source.connect().await?;
        let compiler = Compiler::new(config.mesh.clone());
        let Certificates { issuer, authenticator, upkeep } =
            certificates::open(&config, server.as_ref(), compiler.pods()).await?;
        let names = config.serving_names();
        let acceptor = Acceptor::new(issuer.get().serving_certificate(&names)?)?;
        let listener = listen(config.listen).await?;
        let address = local(&listener, config.listen)?;
        let readiness = Readiness::new();
        let pages = Pages {
            cache: Cache::new(),
            proxies: Proxies::default(),
            reports: Reports::default(),
            readiness,
            recorder,
            manifests: config.source.manifests().into(),
        };
        let rules = Rules {
            trust_domain: config.trust_domain.clone(),
            trusted: config.trusted_node_accounts.clone(),
            enablement: config.enablement.clone(),
        };
        let authority = Authority::new(rules, compiler.pods());
        let mut working = JoinSet::new();
        working.spawn(upkeep.unwrap_or_else(|| std::future::pending().boxed()));
        let Opened { source, status, election } = config.source.open(server.clone(), compiler.cluster().clone())?;
        if let (Some(server), Some(election)) = (&server, &election) {
            working.spawn(certificates::distribute(server, issuer.clone(), election.leadership(), compiler.pods()));
        }
        let acks = start_pipeline(&config, &pages, compiler, source, status, &mut working);
        working.spawn(ca_server::keep_fresh(issuer.clone(), names, acceptor.clone()));
        let monitoring = start_pages(&config, &pages, &drain, &mut working).await?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(Services { acceptor, listener, authenticator, issuer, authority, pages, acks, drain }));
        tracing::info!(%address, %monitoring, "control plane serves");
        Ok(Self { address, monitoring, serving, working, election })
    }

    /// Address that serves discovery and certificates.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of health and metrics.
    pub fn monitoring(&self) -> SocketAddr {
        self.monitoring
    }

    /// Waits until everything has ended after a drain.
    pub async fn ended(mut self) {
        // Streams first: they end in order, and proxies go to another replica. Then what fed them.
        while self.serving.join_next().await.is_some() {}
        self.working.shutdown().await;
        if let Some(election) = self.election {
            // Without it other replicas would wait for the Lease to expire, 15 s, before one of them writes statuses.
            election.release().await;
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}

fn start_pipeline(
    config: &Config,
    pages: &Pages,
    compiler: Compiler,
    source: Source,
    status: Status,
    working: &mut JoinSet<()>,
) -> Acks {
    let reader = source.health();
    pages.readiness.probe(config.source.reader(), move || std::future::ready(reader.is_well()));
    let (conditions, writer) = conditions::writer(status);
    working.spawn(writer);
    let acks = Acks::new(&config.trusted_node_accounts);
    working.spawn(acks.clone().run(pages.reports.clone(), conditions));
    let pipeline = Pipeline {
        source,
        compiler,
        cache: pages.cache.clone(),
        reports: pages.reports.clone(),
        acks: acks.clone(),
        first_state: Some(pages.readiness.task("manifests")),
        current: HashMap::new(),
        is_in_sync: false,
    };
    working.spawn(pipeline.run());
    acks
}

/// Monitoring over TCP, and all pages on the admin socket.
async fn start_pages(
    config: &Config,
    pages: &Pages,
    drain: &drain::Watch,
    working: &mut JoinSet<()>,
) -> Result<SocketAddr, StartError> {
    let listener = listen(config.monitoring_address).await?;
    let address = local(&listener, config.monitoring_address)?;
    let monitoring = http::Server::from_listener(listener);
    working.spawn(monitoring.serve(Arc::new(pages.monitoring()), drain.clone()));
    if let Some(directory) = &config.run_dir {
        let path = directory.join("admin.sock");
        let socket = std::fs::create_dir_all(directory).and_then(|()| http::Server::unix(&path));
        let socket = socket.map_err(|source| StartError::AdminSocket { path, source })?;
        working.spawn(socket.serve(Arc::new(pages.admin()), drain.clone()));
    }
    Ok(address)
}

struct Services {
    acceptor: Acceptor,
    listener: TcpListener,
    authenticator: Arc<dyn Authenticator>,
    issuer: CurrentIssuer,
    authority: Authority,
    pages: Pages,
    acks: Acks,
    drain: drain::Watch,
}

/// Answers proxies until the drain: streams end in good order, requests for certificates finish.
async fn serve(services: Services) {
    let Services { acceptor, listener, authenticator, issuer, authority, pages, acks, mut drain } = services;
    let proxies = pages.proxies;
    let report = move |report| {
        acks.on_report(&report);
        proxies.take(report);
    };
    let options = xds_server::Options::new(Arc::new(report), drain.clone());
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
        // Before both services: no request reaches discovery or the authority without a caller.
        .layer(ca_server::authenticate(authenticator))
        .add_service(xds_server::service(pages.cache, options))
        .add_service(ca_server::service(issuer, Arc::new(authority)));
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
