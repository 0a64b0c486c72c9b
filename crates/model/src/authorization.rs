//! An L4 authorization policy. Types only; crate `policy` evaluates them.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Text, address::deserialize_blocks, workload::is_default};

/// Workloads that a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All.
    Global,
    /// Those of its namespace.
    Namespace,
    /// Those that name it.
    WorkloadSelector,
}

/// A policy that discovery sent and that could not be read. Whom it was meant for is taken as wide as its readable
/// parts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPolicy {
    /// `namespace/name`, as discovery calls it.
    pub key: Text,
    /// Namespace; of the key when the policy itself could not be read.
    pub namespace: Text,
    /// Unreadable: taken for [`Scope::Namespace`].
    pub scope: Option<Scope>,
}

impl RefusedPolicy {
    /// One of which only the key is known.
    #[must_use]
    pub fn unreadable(key: &str) -> Self {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        Self { key: key.into(), namespace: namespace.into(), scope: None }
    }

    /// Namespace in which it applies without being named, "" for all; none for one that must be named.
    pub(crate) fn applies_in(&self) -> Option<&str> {
        match self.scope {
            Some(Scope::Global) => Some(""),
            // Unreadable: the namespace of the key is the narrowest place that is certain to be meant.
            Some(Scope::Namespace) | None => Some(&self.namespace),
            Some(Scope::WorkloadSelector) => None,
        }
    }
}

/// Meaning of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The connection is allowed; what no policy of this kind matches is refused.
    Allow,
    /// The connection is refused.
    Deny,
}

/// Comparison of a text. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringMatch {
    /// Equal.
    Exact(Text),
    /// Begins with.
    Prefix(Text),
    /// Ends with.
    Suffix(Text),
    /// Is not empty.
    Presence(),
}

impl StringMatch {
    /// Does `value` satisfy it?
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => value == text.as_str(),
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::Presence() => !value.is_empty(),
        }
    }
}

impl fmt::Display for StringMatch {
    /// As policies write it: `*` stands for any text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Presence() => f.write_str("*"),
        }
    }
}

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// A service account, whatever the trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    /// Namespace.
    pub namespace: Text,
    /// Name.
    pub service_account: Text,
}

/// Conditions that must all hold; an empty list does not constrain. Without any condition it never matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Match {
    /// Namespace of the peer: one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    /// None of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    /// Identity of the peer without `spiffe://`: one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    /// None of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    /// Address of the peer: in one of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_blocks")]
    pub source_ips: Vec<IpNet>,
    /// In none of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_blocks")]
    pub not_source_ips: Vec<IpNet>,
    /// Address of the application: in one of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_blocks")]
    pub destination_ips: Vec<IpNet>,
    /// In none of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_blocks")]
    pub not_destination_ips: Vec<IpNet>,
    /// Port of the application: one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    /// None of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
    /// Service account of the peer: one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// None of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
}

impl Match {
    /// Without any condition?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One policy, key `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorization {
    /// Name.
    pub name: Text,
    /// Namespace.
    pub namespace: Text,
    /// For which workloads.
    pub scope: Scope,
    /// Meaning of a match.
    pub action: Action,
    /// Rules (any of them) of clauses (all of them) of matches (any of them). No rule: the policy never matches.
    // Not a type for each level: it is the form of the config dump, which Istio's tools read.
    #[serde(default)]
    pub rules: Vec<Vec<Vec<Match>>>,
    /// Only logged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run: bool,
}

impl Authorization {
    /// `namespace/name`: how workloads refer to it, and how logs name it.
    #[must_use]
    pub fn key(&self) -> Text {
        Text::from(format!("{}/{}", self.namespace, self.name))
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
