//! An L7 policy as a waypoint enforces it: an AuthorizationPolicy whose values are parsed.

use std::fmt;

use ipnet::IpNet;
use model::{ServiceAccountMatch, StringMatch, Text};
use serde::{Deserialize, Serialize};

use super::{Condition, PathMatch, Values};

/// Meaning of a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The request is allowed; what no policy of this kind matches is denied.
    Allow,
    /// The request is denied.
    Deny,
    /// The request is marked for the access log.
    Audit,
    /// The provider of this name decides whether the request is denied.
    Custom { provider: Text },
}

/// One policy on requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpPolicy {
    pub namespace: Text,
    pub name: Text,
    pub action: Action,
    /// True if matches are only logged.
    #[serde(default)]
    pub dry_run: bool,
    /// Joined by OR. Without any, the policy never matches; as an ALLOW policy it then denies everything.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl fmt::Display for HttpPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Lists joined by AND. The sources are joined by OR, as are the operations; the conditions by AND. An empty list asks for
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Operation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
}

/// Client. Fields are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Source {
    /// Identity without `spiffe://`.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub principals: Values<StringMatch>,
    /// Issuer and subject of the verified token, `iss/sub`.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub request_principals: Values<StringMatch>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub namespaces: Values<StringMatch>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub service_accounts: Values<ServiceAccountMatch>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub trust_domains: Values<StringMatch>,
    /// Address of the client's pod.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub ip_blocks: Values<IpNet>,
    /// Address that the request says it comes from (`X-Forwarded-For` behind trusted proxies).
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub remote_ip_blocks: Values<IpNet>,
}

/// Request. Fields are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Operation {
    /// `Host` or `:authority` with its port. Letter case does not count.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub hosts: Values<StringMatch>,
    /// Port of the service.
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub ports: Values<u16>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub methods: Values<StringMatch>,
    #[serde(skip_serializing_if = "Values::is_empty")]
    pub paths: Values<PathMatch>,
}
