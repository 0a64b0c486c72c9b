//! The certificate service: authenticates callers and issues certificates to them.
//! Who may get which certificate is decided by the program that runs the service; see [`Authoriser`].

mod authenticate;
mod current;
mod issuer;
mod service;
mod serving;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;

pub use authenticate::{AuthenticateLayer, Authenticated, Authenticator, Unauthenticated, authenticate};
pub use current::{CurrentIssuer, IssuerSlot};
pub use issuer::{Issued, Issuer, IssuerError, Material, SignError};
pub use service::{Authoriser, CertificateService, Denial, service};
pub use serving::keep_fresh;
pub use tokens::{NodeTokens, TokensError};
