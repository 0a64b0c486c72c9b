//! Conditions (`when`) of a rule.

use std::borrow::Cow;

use http::HeaderName;
use ipnet::IpNet;
use model::{ServiceAccountMatch, StringMatch};
use serde::{Deserialize, Serialize};

use super::{Values, serialise};

/// Values of one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    SourceIp(Values<IpNet>),
    RemoteIp(Values<IpNet>),
    SourceNamespace(Values<StringMatch>),
    SourcePrincipal(Values<StringMatch>),
    SourceServiceAccount(Values<ServiceAccountMatch>),
    SourceTrustDomain(Values<StringMatch>),
    DestinationIp(Values<IpNet>),
    DestinationPort(Values<u16>),
    ConnectionSni(Values<StringMatch>),
    RequestPrincipal(Values<StringMatch>),
    /// One of the token's audiences.
    RequestAudiences(Values<StringMatch>),
    /// Claim `azp`.
    RequestPresenter(Values<StringMatch>),
    /// Lines of a header, each of which is one value.
    RequestHeader {
        #[serde(with = "serialise::header_name")]
        name: HeaderName,
        values: Values<StringMatch>,
    },
    /// Claim of the token: a string, or a list of which one element matches. Numbers and booleans do not match.
    RequestClaim {
        /// Names from the outermost claim to the innermost.
        path: Vec<String>,
        values: Values<StringMatch>,
    },
    /// An attribute that cannot be evaluated.
    Unsupported {
        /// Key as it was written.
        key: String,
    },
}

impl Condition {
    /// The key as policies write it.
    #[must_use]
    pub fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::SourceIp(_) => "source.ip",
            Self::RemoteIp(_) => "remote.ip",
            Self::SourceNamespace(_) => "source.namespace",
            Self::SourcePrincipal(_) => "source.principal",
            Self::SourceServiceAccount(_) => "source.serviceAccount",
            Self::SourceTrustDomain(_) => "source.trustDomain",
            Self::DestinationIp(_) => "destination.ip",
            Self::DestinationPort(_) => "destination.port",
            Self::ConnectionSni(_) => "connection.sni",
            Self::RequestPrincipal(_) => "request.auth.principal",
            Self::RequestAudiences(_) => "request.auth.audiences",
            Self::RequestPresenter(_) => "request.auth.presenter",
            Self::RequestHeader { name, .. } => return Cow::Owned(format!("request.headers[{name}]")),
            Self::RequestClaim { path, .. } => {
                return Cow::Owned(format!("request.auth.claims[{}]", path.join("][")));
            }
            Self::Unsupported { key } => key,
        })
    }

    /// The values as text; empty for a condition without any.
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::SourceIp(values) | Self::RemoteIp(values) | Self::DestinationIp(values) => values.to_string(),
            Self::SourceNamespace(values)
            | Self::SourcePrincipal(values)
            | Self::SourceTrustDomain(values)
            | Self::ConnectionSni(values)
            | Self::RequestPrincipal(values)
            | Self::RequestAudiences(values)
            | Self::RequestPresenter(values)
            | Self::RequestHeader { values, .. }
            | Self::RequestClaim { values, .. } => values.to_string(),
            Self::SourceServiceAccount(values) => values.to_string(),
            Self::DestinationPort(values) => values.to_string(),
            Self::Unsupported { .. } => String::new(),
        }
    }

    /// Returns true if no value is listed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self {
            Self::SourceIp(values) | Self::RemoteIp(values) | Self::DestinationIp(values) => values.is_empty(),
            Self::SourceNamespace(values)
            | Self::SourcePrincipal(values)
            | Self::SourceTrustDomain(values)
            | Self::ConnectionSni(values)
            | Self::RequestPrincipal(values)
            | Self::RequestAudiences(values)
            | Self::RequestPresenter(values)
            | Self::RequestHeader { values, .. }
            | Self::RequestClaim { values, .. } => values.is_empty(),
            Self::SourceServiceAccount(values) => values.is_empty(),
            Self::DestinationPort(values) => values.is_empty(),
            Self::Unsupported { .. } => true,
        }
    }
}
