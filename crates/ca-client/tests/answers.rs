//! Behaviour of the client with answers that no honest certificate authority gives. Plain TCP: TLS is tested elsewhere.

use std::sync::Arc;
use std::time::Duration;

use ca_client::{CertificateSource as _, Client, ClientConfig, SourceError};
use ca_server::Issuer;
use http::header::{HeaderName, HeaderValue};
use identity::{Identity, TrustDomain};
use parking_lot::Mutex;
use proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tls::WorkloadCertificate;
use tls::control_plane::{RootSource, Token};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

type Seen = Arc<Mutex<Vec<(http::HeaderMap, IstioCertificateRequest)>>>;
type Answer = Box<dyn Fn(&Issuer, &str) -> Vec<String> + Send + Sync>;

struct Authority {
    issuer: Issuer,
    answer: Answer,
    seen: Seen,
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let cert_chain = (self.answer)(&self.issuer, &message.csr);
        self.seen.lock().push((metadata.into_headers(), message));
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

fn web() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

/// Asks an authority that answers so.
async fn ask(
    answer: impl Fn(&Issuer, &str) -> Vec<String> + Send + Sync + 'static,
) -> (Result<WorkloadCertificate, SourceError>, Seen) {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::open_or_create(dir.path(), TrustDomain::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let seen = Seen::default();
    let authority = Authority { issuer, answer: Box::new(answer), seen: Arc::clone(&seen) };
    let server = tonic::transport::Server::builder().add_service(IstioCertificateServiceServer::new(authority));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = Client::new(ClientConfig {
        address,
        roots: RootSource::System,
        alternative_host: None,
        token: Token::Literal("secret".to_owned()),
        headers: vec![(HeaderName::from_static("clusterid"), HeaderValue::from_static("Kubernetes"))],
        ttl: Duration::from_secs(7200),
        impersonate: true,
    });
    (client.fetch(&web()).await, seen)
}

#[tokio::test]
async fn a_request_carries_token_cluster_and_the_identity_asked_for() {
    let (result, seen) = ask(|issuer, csr| {
        let issued = issuer.sign(csr, &web(), None).unwrap();
        vec![issued.leaf, issued.roots]
    })
    .await;

    result.unwrap();
    let seen = seen.lock();
    let (headers, request) = &seen[0];
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(headers["clusterid"], "Kubernetes");
    assert_eq!(request.validity_duration, 7200);
    let fields = &request.metadata.as_ref().unwrap().fields;
    let expected = prost_types::value::Kind::StringValue(web().to_string());
    assert_eq!(fields["ImpersonatedIdentity"].kind, Some(expected));
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let (result, _) = ask(|issuer, csr| {
        let issued = issuer.sign(csr, &"spiffe://cluster.local/ns/shop/sa/db".parse().unwrap(), None).unwrap();
        vec![issued.leaf, issued.roots]
    })
    .await;

    assert_eq!(result.unwrap_err().code(), "ca_wrong_identity");
}

#[tokio::test]
async fn a_certificate_for_another_key_is_refused() {
    let (result, _) = ask(|issuer, _| {
        let (_, other) = identity::csr::generate(&web()).unwrap();
        let issued = issuer.sign(&other, &web(), None).unwrap();
        vec![issued.leaf, issued.roots]
    })
    .await;

    assert_eq!(result.unwrap_err().code(), "certificate_key");
}

#[tokio::test]
async fn a_certificate_that_its_roots_have_not_signed_is_refused() {
    let (result, _) = ask(|issuer, csr| {
        let dir = tempfile::tempdir().unwrap();
        let stranger = Issuer::open_or_create(dir.path(), TrustDomain::default()).unwrap();
        vec![issuer.sign(csr, &web(), None).unwrap().leaf, stranger.roots_pem().to_owned()]
    })
    .await;

    let code = result.unwrap_err().code();
    assert!(["unknown_issuer", "bad_certificate"].contains(&code), "{code}");
}

#[tokio::test]
async fn answers_without_chain_or_roots_are_refused() {
    let leaf_only = ask(|issuer, csr| vec![issuer.sign(csr, &web(), None).unwrap().leaf]).await.0;
    let nothing = ask(|_, _| vec![]).await.0;
    let garbage = ask(|_, _| vec!["garbage".to_owned(), "garbage".to_owned()]).await.0;
    let no_roots = ask(|issuer, csr| vec![issuer.sign(csr, &web(), None).unwrap().leaf, "garbage".to_owned()]).await.0;

    assert_eq!(leaf_only.unwrap_err().code(), "ca_no_roots");
    assert_eq!(nothing.unwrap_err().code(), "ca_no_roots");
    assert_eq!(garbage.unwrap_err().code(), "certificate_empty_chain");
    assert_eq!(no_roots.unwrap_err().code(), "certificate_no_roots");
}

#[tokio::test]
async fn roots_that_cannot_be_read_are_skipped_beside_good_ones() {
    const BAD: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    let (result, _) = ask(|issuer, csr| {
        let issued = issuer.sign(csr, &web(), None).unwrap();
        vec![issued.leaf, format!("{BAD}{}{}", issued.roots, issued.roots)]
    })
    .await;

    assert_eq!(result.unwrap().roots().len(), 2);
}
