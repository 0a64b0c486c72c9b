//! Starts the parts and ends them together.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ca_server::{CurrentIssuer, IssuerError, SignError, TokensError};
use compile::Compiler;
use futures::FutureExt as _;
use graph::PublishedPods;
use kube_cluster::{ConfigError, ConnectError, Election, Objects};
use kube_types::{Source, Status};
use manifests::SourceError;
use runtime::drain;
use telemetry::http;
use telemetry::metrics::Recorder;
use telemetry::readiness::{Readiness, Task};
use tls::TlsError;
use tls::control_plane::{Acceptor, Token};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use xds_server::Cache;

use crate::acks::Acks;
use crate::admin::Pages;
use crate::certificates::{self, Authority, Certificates, Rules, SecretsError};
use crate::conditions;
use crate::config::Config;
use crate::discovery::{self, Services};
use crate::events::Events;
use crate::pipeline::Pipeline;
use crate::proxies::Proxies;
use crate::replicas::Replicas;
use crate::reports::Reports;
use crate::source::{Opened, SourceConfig};
use crate::waypoints::{Controller, Making, Waypoints};

/// Time from the first sign of the end to the end of streams, in a cluster: until then every node has heard that this replica
/// is not ready, so that proxies which come back reach another one.
const HAND_OVER: Duration = Duration::from_secs(3);

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
    readiness: Readiness,
    /// Tasks that end with the drain.
    serving: JoinSet<()>,
    /// Tasks that are ended with the program.
    working: JoinSet<()>,
    /// Released at the end, so that another replica writes statuses at once.
    election: Option<Election>,
    /// Readiness waits for it once the end was announced.
    ending: Option<Task>,
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
        let Opened { source, status, waypoints: gateways, election } =
            config.source.open(server.clone(), compiler.cluster().clone())?;
        let (waypoints, mut making) = (Waypoints::default(), Making::Others);
        let events = Events::default();
        if let (Some(server), Some(election)) = (&server, &election) {
            working.spawn(certificates::distribute(server, issuer.clone(), election.leadership(), compiler.pods()));
            let (objects, leadership) = (Objects::new(server), election.leadership());
            let instance = config.source.replica().to_owned();
            let events = events.clone().run(objects, move || leadership.is_leading(), instance);
            keep(&mut working, &pages.readiness, "events", events);
            let (objects, leadership) = (Objects::new(server), election.leadership());
            making = Making::cluster(objects, leadership, config.waypoint_settings(), &config.waypoints());
        }
        let published = compiler.pods();
        let controller = Controller::new(config.waypoints(), waypoints.clone(), gateways, making);
        keep(&mut working, &pages.readiness, "waypoints", controller.run());
        let parts = Parts { events, compiler, source, status, waypoints };
        let acks = start_pipeline(&config, &pages, parts, &mut working);
        let replicas = replicas(&config, published, issuer.clone(), address.port());
        if let Some(replicas) = replicas.clone() {
            keep(&mut working, &pages.readiness, "replicas", replicas.run(acks.clone()));
        }
        working.spawn(ca_server::keep_fresh(issuer.clone(), names, acceptor.clone()));
        let monitoring = start_pages(&config, &pages, &drain, &mut working).await?;
        let mut serving = JoinSet::new();
        let readiness = pages.readiness.clone();
        let options = discovery::options(&config, &pages, acks.clone(), drain.clone());
        serving.spawn(discovery::serve(Services {
            acceptor,
            listener,
            authenticator,
            issuer,
            authority,
            pages,
            options,
            replicas: replicas.map(|replicas| (replicas, acks)),
            drain,
        }));
        tracing::info!(%address, %monitoring, "control plane serves");
        Ok(Self { address, monitoring, readiness, serving, working, election, ending: None })
    }

    /// Address that serves discovery and certificates.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of health and metrics.
    pub fn monitoring(&self) -> SocketAddr {
        self.monitoring
    }

    /// Announces the end: readiness is false from now on. In a cluster it returns after 3 s; everything is served meanwhile.
    pub async fn hand_over(&mut self) {
        self.ending = Some(self.readiness.task("ending"));
        // Nobody balances over several processes on one directory.
        if self.election.is_some() {
            tokio::time::sleep(HAND_OVER).await;
        }
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

/// The other replicas of a control plane in a cluster; a directory has one.
fn replicas(config: &Config, pods: PublishedPods, issuer: CurrentIssuer, port: u16) -> Option<Replicas> {
    let SourceConfig::Cluster { namespace, replica, token, .. } = &config.source else { return None };
    let (namespace, name) = (namespace.clone(), replica.clone());
    let host = format!("strake-control.{namespace}.svc");
    Some(Replicas { pods, namespace, name, port, host, token: Token::file(token), issuer })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}

/// Parts of the pipeline.
struct Parts {
    events: Events,
    compiler: Compiler,
    source: Source,
    status: Status,
    waypoints: Waypoints,
}

/// With a cluster, readiness is the first state: an API server that is away changes nothing for running traffic, and a
/// replica that is not ready would take discovery and certificates away from the nodes. Logs and metrics tell of it.
fn start_pipeline(config: &Config, pages: &Pages, parts: Parts, working: &mut JoinSet<()>) -> Acks {
    let Parts { events, compiler, source, status, waypoints } = parts;
    if config.source.is_directory() {
        let reader = source.health();
        pages.readiness.probe("manifest reader", move || std::future::ready(reader.is_well()));
    }
    let (conditions, writer) = conditions::writer(status);
    keep(working, &pages.readiness, "statuses", writer);
    let acks = Acks::new(&config.trusted_node_accounts);
    let run = acks.clone().run(pages.reports.clone(), events.clone(), conditions);
    keep(working, &pages.readiness, "acknowledgements", run);
    let pipeline = Pipeline {
        source,
        compiler,
        cache: pages.cache.clone(),
        reports: pages.reports.clone(),
        events,
        acks: acks.clone(),
        waypoints,
        first_state: Some(pages.readiness.task("manifests")),
        current: HashMap::new(),
        is_in_sync: false,
    };
    keep(working, &pages.readiness, "pipeline", pipeline.run());
    acks
}

/// Runs a part that is needed as long as the program runs. If it ends, by a panic, the program is not ready any more.
fn keep(
    working: &mut JoinSet<()>,
    readiness: &Readiness,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    let alive = Arc::new(());
    let watched = Arc::downgrade(&alive);
    readiness.probe(name, move || std::future::ready(watched.strong_count() > 0));
    working.spawn(async move {
        part.await;
        drop(alive);
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_makes_the_program_unready() {
        let (readiness, mut working) = (Readiness::new(), JoinSet::new());
        keep(&mut working, &readiness, "lasting", std::future::pending());
        keep(&mut working, &readiness, "broken", async { panic!("of this test") });
        assert!(working.join_next().await.is_some_and(|ended| ended.is_err()));

        assert_eq!(readiness.pending().await, ["broken"]);
    }
}
