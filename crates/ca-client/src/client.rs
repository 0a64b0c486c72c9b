//! Asks the certificate authority over gRPC. When to ask is the manager's business.

use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use identity::Identity;
use parking_lot::Mutex;
use prost_types::{Struct, Value, value::Kind};
use proto::auth::IstioCertificateRequest;
use proto::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls::WorkloadCertificate;
use tls::control_plane::{Connector, RootSource, Token};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::source::{CertificateSource, SourceError};

/// HTTP/2 PING: how often, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of the connection to the certificate authority.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `https://host:port`; `http` is plain TCP.
    pub address: Uri,
    /// Roots for the server's certificate. A changed file takes effect with the next request.
    pub roots: RootSource,
    /// A further host name that the server's certificate may have (`ALT_CA_HOSTNAME`).
    pub alternative_host: Option<String>,
    /// Bearer token, read again for every request.
    pub token: Token,
    /// Further request headers: `clusterid`, `CA_HEADER_*`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Validity to ask for (`SECRET_TTL`).
    pub ttl: Duration,
    /// Ask for other identities than the token's: what a proxy of a whole node does.
    pub impersonate: bool,
}

/// Client of `istio.v1.auth.IstioCertificateService`.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    /// The channel and the roots it was made with.
    channel: Mutex<Option<(String, Channel)>>,
}

impl Client {
    /// Connects with the first request.
    pub fn new(config: ClientConfig) -> Self {
        config.token.warn_if_readable(&config.address, "certificate authority");
        Self { config, channel: Mutex::new(None) }
    }

    async fn create(&self, identity: &Identity) -> Result<WorkloadCertificate, SourceError> {
        // A new key for every certificate: one that was copied is worthless after the next renewal.
        let (key, csr) = identity::csr::generate(identity)?;
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(self.config.ttl.as_secs()).unwrap_or(i64::MAX),
            metadata: self.config.impersonate.then(|| impersonating(identity)),
        });
        *request.metadata_mut() = self.headers().await?;
        let mut service = IstioCertificateServiceClient::new(self.channel().await?);
        let answer = service.create_certificate(request).await.map_err(|status| SourceError::Refused(Box::new(status)));
        certificate(identity, &key, &answer?.into_inner().cert_chain)
    }

    /// The channel in use, or a new one when the roots have changed since.
    async fn channel(&self) -> Result<Channel, SourceError> {
        let roots = match self.config.address.scheme_str() {
            // Plain TCP, for tests: there is no certificate to check.
            Some("http") => String::new(),
            _ => self.config.roots.read().await?,
        };
        let mut current = self.channel.lock();
        if let Some((known, channel)) = &*current
            && *known == roots
        {
            return Ok(channel.clone());
        }
        // Requests in flight keep the old channel; it closes with the last of them.
        let connector = Connector::new(self.config.roots.clone(), self.config.alternative_host.clone());
        let channel = Endpoint::from(self.config.address.clone())
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        *current = Some((roots, channel.clone()));
        Ok(channel)
    }

    async fn headers(&self) -> Result<MetadataMap, SourceError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.config.headers {
            headers.append(name, value.clone());
        }
        // Read again for each request: the kubelet replaces the token long before it expires.
        if let Some(bearer) = self.config.token.bearer().await.map_err(SourceError::Token)? {
            let value = HeaderValue::from_str(&bearer)
                .map_err(|error| SourceError::Token(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(MetadataMap::from_headers(headers))
    }
}

impl CertificateSource for Client {
    fn fetch(&self, identity: &Identity) -> BoxFuture<'_, Result<WorkloadCertificate, SourceError>> {
        let identity = identity.clone();
        async move { self.create(&identity).await }.boxed()
    }
}

fn impersonating(identity: &Identity) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: [(proto::IMPERSONATED_IDENTITY.to_owned(), value)].into() }
}

/// The answer as a certificate, once it is for the requested identity and passes the check that peers will make.
fn certificate(
    identity: &Identity,
    key: &PrivateKeyDer<'static>,
    answer: &[String],
) -> Result<WorkloadCertificate, SourceError> {
    // The leaf, intermediates, and the bundle of roots last, each part with one or more PEM blocks (Istio's
    // convention).
    let [chain @ .., roots] = answer else { return Err(SourceError::NoRoots(0)) };
    if chain.is_empty() {
        return Err(SourceError::NoRoots(answer.len()));
    }
    let mut certificates = Vec::new();
    for pem in chain {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            certificates.push(certificate.map_err(tls::CertificateError::Pem)?);
        }
    }
    let certificate = WorkloadCertificate::new(certificates, key, readable(roots))?;
    // A proxy that shows another workload's certificate would act as that workload.
    if certificate.identity() != identity {
        let (requested, given) = (identity.clone(), certificate.identity().clone());
        return Err(SourceError::WrongIdentity { requested, given });
    }
    // The check that peers make: better no certificate, with a clear error, than one that every peer refuses.
    certificate.check(SystemTime::now())?;
    Ok(certificate)
}

/// The roots of a bundle that can be read; the others are named in the log.
fn readable(bundle: &str) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes());
    certificates
        .filter_map(|certificate| {
            certificate.map_err(|error| tracing::warn!(%error, "skipped an invalid root certificate")).ok()
        })
        .collect()
}
