//! Something about a resource that its author should know.

use std::fmt;

use kube_types::ObjectRef;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A part of the resource has no effect, or another effect than it says.
    Warning,
    /// Worth a look; nothing is certainly wrong.
    Info,
}

/// Subject of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An HTTP attribute in a policy for node proxies.
    HttpAttribute,
    /// A value that cannot be read, or that no node proxy can match.
    InvalidValue,
    /// A principal that is not the identity of anybody in this mesh.
    InvalidPrincipal,
    /// A trust domain that is not the mesh's.
    UnknownTrustDomain,
    /// A namespace that does not exist.
    UnknownNamespace,
    /// A service account that does not exist.
    UnknownServiceAccount,
    /// An IP block that is not what it looks like.
    IpBlock,
    /// The port of a Service where the port of its pods is meant.
    ServicePort,
    /// A port that none of the selected workloads declares.
    UndeclaredPort,
    /// A rule that no connection matches.
    MatchesNothing,
    /// A selector that no pod has the labels of.
    SelectsNothing,
    /// An ALLOW policy that refuses every connection, although it has rules.
    AllowsNothing,
    /// A DENY policy that refuses every connection.
    DeniesEverything,
    /// A value or rule that is there twice.
    Duplicate,
    /// A label that is probably another one, misspelt.
    MisspeltLabel,
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
    /// Text that is not an address.
    InvalidAddress,
    /// Something that this mesh does not do.
    Unsupported,
}

impl Severity {
    /// Stable: value in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Reason {
    /// Stable: log key, metric label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::HttpAttribute => "http_attribute",
            Self::InvalidValue => "invalid_value",
            Self::InvalidPrincipal => "invalid_principal",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::UnknownNamespace => "unknown_namespace",
            Self::UnknownServiceAccount => "unknown_service_account",
            Self::IpBlock => "ip_block",
            Self::ServicePort => "service_port",
            Self::UndeclaredPort => "undeclared_port",
            Self::MatchesNothing => "matches_nothing",
            Self::SelectsNothing => "selects_nothing",
            Self::AllowsNothing => "allows_nothing",
            Self::DeniesEverything => "denies_everything",
            Self::Duplicate => "duplicate",
            Self::MisspeltLabel => "misspelt_label",
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
    /// Path of the field, as `spec.rules[0].to[0].operation.ports[0]`; empty when it is about the object as a whole.
    pub field: String,
    pub message: String,
}

impl Finding {
    pub(crate) fn warning(object: &ObjectRef, reason: Reason, message: impl Into<String>) -> Self {
        Self::new(object, Severity::Warning, reason, message)
    }

    pub(crate) fn new(object: &ObjectRef, severity: Severity, reason: Reason, message: impl Into<String>) -> Self {
        Self { object: object.clone(), severity, reason, field: String::new(), message: message.into() }
    }

    /// About this field.
    pub(crate) fn at(self, field: impl Into<String>) -> Self {
        Self { field: field.into(), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} ({})", self.message, self.reason.code())
    }
}
