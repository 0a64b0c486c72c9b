//! Something about a resource that its author should know.

use std::fmt;

use kube_api::ObjectRef;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A part of the resource has no effect, or another effect than it says.
    Warning,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An HTTP attribute in a policy for node proxies.
    HttpAttribute,
    /// A value that cannot be read, or that no node proxy can match.
    InvalidValue,
    /// AUDIT or CUSTOM.
    UnsupportedAction,
    /// The policy is for a waypoint.
    NeedsWaypoint,
    /// The policy has both a selector and a target.
    Ambiguous,
    /// A setting that counts for nothing where it stands.
    Ignored,
    /// An older resource decides instead.
    Shadowed,
    /// An address that is none.
    InvalidAddress,
    /// Something that this mesh does not do.
    Unsupported,
}

impl Reason {
    /// Stable: log key, metric label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::HttpAttribute => "http_attribute",
            Self::InvalidValue => "invalid_value",
            Self::UnsupportedAction => "unsupported_action",
            Self::NeedsWaypoint => "needs_waypoint",
            Self::Ambiguous => "ambiguous",
            Self::Ignored => "ignored",
            Self::Shadowed => "shadowed",
            Self::InvalidAddress => "invalid_address",
            Self::Unsupported => "unsupported",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub object: ObjectRef,
    pub severity: Severity,
    pub reason: Reason,
    pub message: String,
}

impl Finding {
    pub(crate) fn warning(object: &ObjectRef, reason: Reason, message: impl Into<String>) -> Self {
        Self { object: object.clone(), severity: Severity::Warning, reason, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.object, self.message, self.reason.code())
    }
}
