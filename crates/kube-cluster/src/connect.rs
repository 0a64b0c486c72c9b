//! The connection to an API server: where it is, and with which credentials.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::{Layer, Service, ServiceExt};

/// Longest time to a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// TCP keepalive: a peer that is gone without a word is noticed after about 30 s.
const KEEPALIVE_TIME: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Place of an API server's address and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The pod's ServiceAccount. Its token and the certificate of the authority are read again every minute.
    InCluster,
    /// The kubeconfig that kubectl takes: of `$KUBECONFIG`, which may name several files, or `~/.kube/config`. In a pod without
    /// one, and where no context is named, the pod's ServiceAccount, as for kubectl.
    User { context: Option<String> },
    /// A kubeconfig; its current context where none is named. Token files in it are read again every minute.
    Kubeconfig { path: PathBuf, context: Option<String> },
}

/// Reason why there is no connection to configure. The API server itself is not asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to read the ServiceAccount of this pod; outside of a cluster give a kubeconfig")]
    InCluster(#[source] Box<InClusterError>),
    #[error("failed to read kubeconfig {path}")]
    Kubeconfig { path: PathBuf, source: Box<KubeconfigError> },
    #[error("failed to read a kubeconfig; name one by --kubeconfig or KUBECONFIG")]
    User(#[source] Box<KubeconfigError>),
    #[error("the kubeconfig names a proxy, which is not supported")]
    Proxy,
    #[error("failed to set up the connection to the API server")]
    Setup(#[source] Box<kube::Error>),
}

/// An API server with the credentials of this program. Clones share connections.
#[derive(Clone)]
pub struct ApiServer {
    client: kube::Client,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Reads the credentials. Connections are opened when they are needed, and again when they break.
    ///
    /// # Errors
    /// When credentials are missing or invalid.
    pub async fn new(credentials: &Credentials) -> Result<Self, ConnectError> {
        let config = match credentials {
            Credentials::InCluster => {
                kube::Config::incluster_env().map_err(|error| ConnectError::InCluster(Box::new(error)))?
            }
            Credentials::User { context } => user(context.clone()).await?,
            Credentials::Kubeconfig { path, context } => kubeconfig(path, context.clone()).await?,
        };
        // Refused and not left out: requests that go directly may reach another server, or none.
        if config.proxy_url.is_some() {
            return Err(ConnectError::Proxy);
        }
        Ok(Self { client: client(&config).map_err(|error| ConnectError::Setup(Box::new(error)))? })
    }

    /// An API server behind any transport, for instance in tests.
    pub fn with_client(client: kube::Client) -> Self {
        Self { client }
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }
}

async fn user(context: Option<String>) -> Result<kube::Config, ConnectError> {
    let failed = |source| ConnectError::User(Box::new(source));
    match Kubeconfig::read() {
        Ok(read) => choose(read, context).await.map_err(failed),
        // A file that is there and cannot be read names a cluster, which may be another one than the pod's.
        Err(error) if is_absent(&error) && context.is_none() => {
            kube::Config::incluster_env().map_err(|_| failed(error))
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

async fn kubeconfig(path: &PathBuf, context: Option<String>) -> Result<kube::Config, ConnectError> {
    let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let read = Kubeconfig::read_from(path).map_err(failed)?;
    choose(read, context).await.map_err(failed)
}

async fn choose(read: Kubeconfig, context: Option<String>) -> Result<kube::Config, KubeconfigError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    kube::Config::from_custom_kubeconfig(read, &options).await
}

/// kube's own client with keepalive, and without its retries: readers and writers pause themselves.
fn client(config: &kube::Config) -> Result<kube::Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    // The connector below it is asked for `https`, of which it makes only the TCP connection.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(KEEPALIVE_TIME));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let connections = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    // Credentials that cannot be read are an error of a request, too.
    let connections = ServiceExt::<Request<Body>>::map_err(connections, tower::BoxError::from);
    let service = config.extra_headers_layer()?.layer(connections);
    Ok(match config.auth_layer()? {
        Some(credentials) => finish(config, credentials.layer(service)),
        None => finish(config, service),
    })
}

fn finish<S>(config: &kube::Config, service: S) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<Incoming>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
{
    kube::Client::new(config.base_uri_layer().layer(service), config.default_namespace.clone())
}
