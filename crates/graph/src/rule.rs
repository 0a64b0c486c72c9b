//! Rules as node proxies enforce them: an AuthorizationPolicy or PeerAuthentication, reduced to addresses, ports and
//! identities. The crate `compile` encodes them for the wire.

use ipnet::IpNet;

use crate::placement::Scope;

/// A policy for node proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub name: String,
    pub namespace: String,
    pub scope: Scope,
    pub action: Action,
    /// Alternatives: one rule that matches is enough. Without rules the policy never matches.
    pub rules: Vec<Rule>,
    /// The policy is evaluated and logged, not enforced.
    pub dry_run: bool,
}

/// Action of a policy that node proxies enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
}

/// Clauses that must all hold. A rule without clauses matches every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub clauses: Vec<Clause>,
}

/// Alternatives: one match that holds is enough. A clause without matches always holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    pub matches: Vec<Match>,
}

/// Lists that must all hold: a positive one when a value of it matches, a negative one (`not_`) when none does. An empty
/// list holds. A match with only empty lists never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub namespaces: Vec<StringMatch>,
    pub not_namespaces: Vec<StringMatch>,
    /// Identities without `spiffe://`.
    pub principals: Vec<StringMatch>,
    pub not_principals: Vec<StringMatch>,
    /// Blocks without host bits, as every list of blocks.
    pub source_ips: Vec<IpNet>,
    pub not_source_ips: Vec<IpNet>,
    pub destination_ips: Vec<IpNet>,
    pub not_destination_ips: Vec<IpNet>,
    pub destination_ports: Vec<u16>,
    pub not_destination_ports: Vec<u16>,
    pub service_accounts: Vec<ServiceAccount>,
    pub not_service_accounts: Vec<ServiceAccount>,
}

/// A pattern for text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// Any text but an empty one.
    Presence,
}

/// A service account by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

impl Authorization {
    /// Name of the discovery resource, by which workloads refer to it.
    pub fn resource_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl StringMatch {
    /// Returns true if the value satisfies the pattern.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::Presence => !value.is_empty(),
        }
    }
}
