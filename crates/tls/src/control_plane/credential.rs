//! The credential that a call began with, so that a long call can be ended when it is no longer good.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// Is a credential still good?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Yes, and it belongs to the same caller as before.
    Valid,
    /// No, with the reason.
    Revoked(String),
    /// It could not be checked, with the reason. That says nothing about the credential.
    Unknown(String),
}

/// A credential that can be checked again.
pub trait Credential: Send + Sync + 'static {
    /// Checks it. May be dropped at any point.
    fn check(&self) -> Pin<Box<dyn Future<Output = Validity> + Send + '_>>;
}

/// The credential of a request, as extension of it. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ShownCredential(pub Arc<dyn Credential>);

impl fmt::Debug for ShownCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownCredential(..)")
    }
}
