//! Verbs of requests, as RBAC rules name them.

use std::fmt;

/// Verb of a request, as RBAC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    /// Name in RBAC rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// Verbs that reading a kind takes.
pub(crate) const READ: &[Verb] = &[Verb::List, Verb::Watch];

/// Verbs that writing conditions takes, of the subresource `status`: the conditions of others are read first.
pub(crate) const WRITE_STATUS: &[Verb] = &[Verb::Get, Verb::Patch];

/// Verbs that writing annotations of pods takes, of the subresource `status`: it reaches nothing of their specification.
pub(crate) const WRITE_ANNOTATIONS: &[Verb] = &[Verb::Patch];

/// Verbs that making a Lease takes. RBAC cannot bind it to a name, because the request has none in its path.
pub(crate) const MAKE_LEASE: &[Verb] = &[Verb::Create];

/// Verbs that taking, renewing and releasing a Lease takes.
pub(crate) const HOLD_LEASE: &[Verb] = &[Verb::Get, Verb::Update];

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
