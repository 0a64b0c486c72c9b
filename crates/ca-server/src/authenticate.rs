//! Finds out who calls, by bearer token, before any service sees the request. What the caller may do is decided there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use identity::Caller;
use tls::control_plane::{ConnectionInfo, Credential, ShownCredential, Validity};
use tower::{Layer, Service};

/// A token that proves nothing. The reason is for our log; the caller learns only that it was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The request has no token, or an unknown one.
    #[error("{0}")]
    Invalid(String),
    /// The token could not be checked. The caller is refused all the same.
    #[error("{0}")]
    Unchecked(String),
}

/// Checks tokens: against a file in directory mode, by TokenReview in a cluster.
pub trait Authenticator: Send + Sync + 'static {
    /// Returns the caller that the token belongs to.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Unauthenticated>>;
}

/// The layer for tonic's server: requests without a good token are answered with `UNAUTHENTICATED`, the others carry
/// their [`Caller`] as extension.
pub fn authenticate(authenticator: Arc<dyn Authenticator>) -> AuthenticateLayer {
    AuthenticateLayer(authenticator)
}

/// See [`authenticate`].
#[derive(Clone)]
pub struct AuthenticateLayer(Arc<dyn Authenticator>);

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Authenticated<S> {
        Authenticated { authenticator: Arc::clone(&self.0), inner }
    }
}

/// A service behind [`AuthenticateLayer`].
#[derive(Clone)]
pub struct Authenticated<S> {
    authenticator: Arc<dyn Authenticator>,
    inner: S,
}

impl<S, In, Out> Service<Request<In>> for Authenticated<S>
where
    S: Service<Request<In>, Response = Response<Out>> + Clone + Send + 'static,
    S::Future: Send,
    In: Send + 'static,
    Out: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        // The clone has not been polled ready, the original has: it takes the call.
        let unready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, unready);
        let authenticator = Arc::clone(&self.authenticator);
        async move {
            let token = bearer(request.headers()).map(str::to_owned);
            let found = match &token {
                Some(token) => authenticator.authenticate(token).await,
                None => Err(Unauthenticated::Invalid("no bearer token".to_owned())),
            };
            let connection = request.extensions().get::<ConnectionInfo>();
            match found {
                Ok(caller) => {
                    // From now on the connection does not count as unproved, which others may push out
                    // (`tls::control_plane::admission`).
                    if let Some(connection) = connection {
                        connection.admission.prove();
                    }
                    let token = token.unwrap_or_default();
                    let credential = TokenOf { authenticator, token, caller: caller.clone() };
                    request.extensions_mut().insert(ShownCredential(Arc::new(credential)));
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(reason) => {
                    let peer = connection.map(|connection| tracing::field::display(connection.peer));
                    tracing::warn!(peer, path = request.uri().path(), %reason, "caller not authenticated");
                    metrics::counter!("strake_control_unauthenticated_total").increment(1);
                    // Istio's text. It tells nobody why: whoever guesses tokens would learn from it.
                    Ok(tonic::Status::unauthenticated("request authenticate failure").into_http())
                }
            }
        }
        .boxed()
    }
}

/// The token that a call began with.
struct TokenOf {
    authenticator: Arc<dyn Authenticator>,
    token: String,
    caller: Caller,
}

impl Credential for TokenOf {
    fn check(&self) -> Pin<Box<dyn Future<Output = Validity> + Send + '_>> {
        Box::pin(async {
            match self.authenticator.authenticate(&self.token).await {
                Ok(caller) if caller == self.caller => Validity::Valid,
                // The file was rewritten under the same token: what the stream was allowed was decided for somebody
                // else.
                Ok(_) => Validity::Revoked("the token belongs to another caller now".to_owned()),
                Err(Unauthenticated::Invalid(reason)) => Validity::Revoked(reason),
                Err(Unauthenticated::Unchecked(reason)) => Validity::Unknown(reason),
            }
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
