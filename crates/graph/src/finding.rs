//! Findings: facts about a resource that its author should know.

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

/// Subject of a finding. [`Reason::entry`] says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    HttpAttribute,
    InvalidValue,
    InvalidPrincipal,
    UnknownTrustDomain,
    UnknownNamespace,
    UnknownServiceAccount,
    IpBlock,
    ServicePort,
    UndeclaredPort,
    MatchesNothing,
    SelectsNothing,
    AllowsNothing,
    DeniesEverything,
    Duplicate,
    MisspeltLabel,
    UnsupportedAction,
    NeedsWaypoint,
    NoWaypoint,
    Ambiguous,
    Ignored,
    Shadowed,
    InvalidAddress,
    Unsupported,
    MissingReference,
}

/// Code of a reason, and what its reader needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonEntry {
    /// Stable: log key, metric label.
    pub code: &'static str,
    pub meaning: &'static str,
    pub remedy: &'static str,
}

const fn entry(code: &'static str, meaning: &'static str, remedy: &'static str) -> ReasonEntry {
    ReasonEntry { code, meaning, remedy }
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
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 24] = [
        Self::HttpAttribute,
        Self::InvalidValue,
        Self::InvalidPrincipal,
        Self::UnknownTrustDomain,
        Self::UnknownNamespace,
        Self::UnknownServiceAccount,
        Self::IpBlock,
        Self::ServicePort,
        Self::UndeclaredPort,
        Self::MatchesNothing,
        Self::SelectsNothing,
        Self::AllowsNothing,
        Self::DeniesEverything,
        Self::Duplicate,
        Self::MisspeltLabel,
        Self::UnsupportedAction,
        Self::NeedsWaypoint,
        Self::NoWaypoint,
        Self::Ambiguous,
        Self::Ignored,
        Self::Shadowed,
        Self::InvalidAddress,
        Self::Unsupported,
        Self::MissingReference,
    ];

    /// Stable: log key, metric label.
    pub const fn code(self) -> &'static str {
        self.entry().code
    }

    /// Code, meaning and remedy.
    #[rustfmt::skip] // One line for each reason.
    pub const fn entry(self) -> ReasonEntry {
        match self {
            Self::HttpAttribute => entry("http_attribute", "An HTTP attribute in a policy for node proxies, which see connections and not requests: an ALLOW rule is left out, a DENY rule is enforced without the attribute.", "Remove the attribute, or use attributes of connections."),
            Self::InvalidValue => entry("invalid_value", "A value that does not parse, or that no node proxy can match.", "Correct the value."),
            Self::InvalidPrincipal => entry("invalid_principal", "A principal that is not the identity of a workload of this mesh.", "Write `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, without `spiffe://`."),
            Self::UnknownTrustDomain => entry("unknown_trust_domain", "A trust domain that is not that of the mesh.", "Use the trust domain that the message names."),
            Self::UnknownNamespace => entry("unknown_namespace", "A namespace that does not exist.", "Correct the name, or create the namespace."),
            Self::UnknownServiceAccount => entry("unknown_service_account", "A service account that does not exist.", "Correct the name, or create the service account."),
            Self::IpBlock => entry("ip_block", "An IP block that is treated as another one than it looks like.", "Write the block that the message names."),
            Self::ServicePort => entry("service_port", "The port of a Service, where policies match the port of its pods.", "Use the port of the pods, which the message names."),
            Self::UndeclaredPort => entry("undeclared_port", "A port that none of the selected workloads declares.", "Compare it with the ports on which the workloads listen."),
            Self::MatchesNothing => entry("matches_nothing", "A rule or value that no connection can match.", "Correct or remove the rule."),
            Self::SelectsNothing => entry("selects_nothing", "A selector whose labels no pod has.", "Correct the label, or label the pods."),
            Self::AllowsNothing => entry("allows_nothing", "An ALLOW policy with rules, none of which can match: it denies every connection.", "Correct the rules, or write `spec: {}` if that is meant."),
            Self::DeniesEverything => entry("denies_everything", "A DENY policy that denies every connection.", "None, if that is meant."),
            Self::Duplicate => entry("duplicate", "A value or rule that occurs twice.", "Remove one of them."),
            Self::MisspeltLabel => entry("misspelt_label", "A label that is probably a misspelt one of the mesh.", "Use the label that the message names."),
            Self::UnsupportedAction => entry("unsupported_action", "The action AUDIT or CUSTOM, which node proxies do not support.", "Use ALLOW or DENY."),
            Self::NeedsWaypoint => entry("needs_waypoint", "A policy, route or label for a waypoint; no waypoint enforces or reads it.", "Bind the service to a waypoint, use a selector, or remove the object or label."),
            Self::NoWaypoint => entry("no_waypoint", "A waypoint that an object or its namespace names, and that takes none of its connections.", "Correct what the message names: the Gateway's name, its address in the status, its `allowedRoutes` or its label `istio.io/waypoint-for`."),
            Self::Ambiguous => entry("ambiguous", "A policy with a selector and with `targetRefs`.", "Remove one of them."),
            Self::Ignored => entry("ignored", "A setting that has no effect where it stands.", "Move or remove the setting."),
            Self::Shadowed => entry("shadowed", "Another resource takes precedence everywhere.", "Merge the resources, or delete one."),
            Self::InvalidAddress => entry("invalid_address", "Text that is not an IP address.", "Look at the program that wrote the object."),
            Self::Unsupported => entry("unsupported", "A setting of Istio or Kubernetes that this mesh does not support.", "Remove the setting, or accept what happens instead."),
            Self::MissingReference => entry("missing_reference", "A service, port, subset or VirtualService that does not exist; requests for it are answered with an error.", "Correct the name, or create the object."),
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
        // The code last, as in the log, so that a reader can look it up in the reference.
        write!(f, "{} ({})", self.message, self.reason.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_in_the_order_of_declaration() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
        assert_eq!(Reason::MissingReference as usize + 1, Reason::ALL.len());
    }
}
