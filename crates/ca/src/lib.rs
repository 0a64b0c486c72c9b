//! Certificates of workloads: asking for them, keeping them fresh, and issuing them.
//! TLS with them is `tls`'s business; who may get which is decided by the program that runs the service.

mod authenticate;
mod client;
mod issuer;
mod manager;
mod service;
mod serving;
mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;

pub use authenticate::{AuthenticateLayer, Authenticated, Authenticator, Unauthenticated, authenticate};
pub use client::{Client, ClientConfig};
pub use identity::Caller;
pub use issuer::{Issued, Issuer, IssuerError, SignError};
pub use manager::{CertificateError, CertificateManager, CertificateStatus, Clock, Priority, State};
pub use service::{Authoriser, CertificateService, Denial, service};
pub use serving::keep_fresh;
pub use source::{CertificateSource, SourceError};
pub use tokens::{NodeTokens, TokensError};

/// Key of the request's metadata under which a node proxy names the identity it asks for.
const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";
