//! The gRPC service of the certificate authority: who asks, for whom, may it, sign.

use std::sync::Arc;
use std::time::Duration;

use identity::{Caller, Identity};
use prost_types::value::Kind;
use proto::auth::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::current::CurrentIssuer;
use crate::issuer::SignError;

/// A request has one signing request and little more.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Reason for refusing a certificate. For our log; the caller learns only that it was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denial(pub String);

/// Decides who gets which certificate: for a node proxy, the identities of pods on its own node.
pub trait Authoriser: Send + Sync + 'static {
    /// Decides whether `caller` may have a certificate of `requested`. Never called about the caller's own identity.
    /// Must not block.
    fn authorise(&self, caller: &Caller, requested: &Identity) -> Result<(), Denial>;
}

/// See [`service`].
pub struct CertificateService {
    issuer: CurrentIssuer,
    authoriser: Arc<dyn Authoriser>,
}

/// The service for tonic's router, behind [`crate::authenticate()`].
pub fn service(
    issuer: CurrentIssuer,
    authoriser: Arc<dyn Authoriser>,
) -> IstioCertificateServiceServer<CertificateService> {
    IstioCertificateServiceServer::new(CertificateService { issuer, authoriser })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        // Put there by the layer `authenticate`. Without it the service is not behind that layer, and must refuse.
        let caller = request.extensions().get::<Caller>().cloned();
        let caller =
            caller.ok_or_else(|| refused("no_caller", Status::unauthenticated("request authenticate failure")))?;
        let request = request.into_inner();
        let requested = requested(&caller, &request)?;
        // A proxy may always renew its own certificate, also before discovery knows a pod of its node.
        if requested != caller.identity
            && let Err(reason) = self.authoriser.authorise(&caller, &requested)
        {
            tracing::warn!(node = caller.node, caller = %caller.identity, %requested, %reason, "certificate denied");
            return Err(refused("denied", Status::unauthenticated("request impersonation authentication failure")));
        }
        let asked = ttl(&request);
        let issuer = self.issuer.get();
        // Shortened and not refused: the proxy renews by the validity that it gets.
        if let Some(asked) = asked.filter(|asked| *asked > issuer.max_ttl()) {
            let given = issuer.max_ttl();
            tracing::info!(node = caller.node, %requested, ?asked, ?given, "requested TTL exceeds the maximum");
            metrics::counter!("strake_ca_ttl_shortened_total").increment(1);
        }
        let issued = issuer.sign(&request.csr, &requested, asked).map_err(|error| {
            tracing::warn!(node = caller.node, %requested, code = error.code(), %error, "certificate not signed");
            refused(error.code(), status(&error))
        })?;
        tracing::info!(node = caller.node, caller = %caller.identity, %requested, serial = issued.serial, "certificate signed");
        metrics::counter!("strake_ca_requests_total", "outcome" => "signed").increment(1);
        let mut cert_chain = vec![issued.leaf];
        cert_chain.extend(issued.intermediates);
        cert_chain.push(issued.roots);
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// Returns the identity to sign for: the caller's own unless the request names another one.
fn requested(caller: &Caller, request: &IstioCertificateRequest) -> Result<Identity, Status> {
    let fields = request.metadata.as_ref().map(|metadata| &metadata.fields);
    let value = fields.and_then(|fields| fields.get(proto::IMPERSONATED_IDENTITY));
    match value.and_then(|value| value.kind.as_ref()) {
        None => Ok(caller.identity.clone()),
        Some(Kind::StringValue(text)) if text.is_empty() => Ok(caller.identity.clone()),
        Some(Kind::StringValue(text)) => text
            .parse()
            .map_err(|error| refused("identity", Status::invalid_argument(format!("ImpersonatedIdentity: {error}")))),
        Some(_) => Err(refused("identity", Status::invalid_argument("ImpersonatedIdentity is not a string"))),
    }
}

/// Returns the requested validity; `None`, which means the usual one, when it is absent, zero or negative.
fn ttl(request: &IstioCertificateRequest) -> Option<Duration> {
    u64::try_from(request.validity_duration).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn status(error: &SignError) -> Status {
    match error {
        SignError::Request | SignError::Signature | SignError::Key(_) | SignError::WrongTrustDomain { .. } => {
            Status::invalid_argument(error.to_string())
        }
        // The caller cannot do anything about it; the reason is in the log of the authority.
        SignError::RootExpired | SignError::Certificate(_) | SignError::Serving(_) => {
            Status::internal("the certificate authority cannot sign")
        }
    }
}

fn refused(outcome: &'static str, status: Status) -> Status {
    metrics::counter!("strake_ca_requests_total", "outcome" => outcome).increment(1);
    status
}
