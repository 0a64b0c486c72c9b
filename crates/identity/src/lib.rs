//! SPIFFE ids, trust domains, certificate facts and signing requests.
//! No TLS and no sockets: see the `tls` crate. No issuing: see the `ca` crate.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

pub mod csr;
mod id;
mod leaf;

pub use id::{Identity, IdentityError, TrustDomain};
pub use leaf::{Leaf, LeafError};

/// Caller of the control plane, once its token was checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Name of the Kubernetes node that the caller runs on. Empty for a token that no pod holds, which is a tool's: it gets no
    /// certificate and no discovery.
    pub node: String,
    /// The caller's own identity, for example that of the node proxy.
    pub identity: Identity,
}
