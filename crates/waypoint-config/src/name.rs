//! Names of resources.

use std::fmt;
use std::str::FromStr;

use model::NamespacedHostname;

const GATEWAY: &str = "gateway/";

/// Name of a resource: `NAMESPACE/HOST` of a service, or `gateway/NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Service { namespace: String, host: String },
    Gateway { namespace: String, name: String },
}

/// An invalid name of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid resource name {0:?}: expected NAMESPACE/HOST, or gateway/NAMESPACE/NAME")]
pub struct NoName(pub String);

impl Name {
    pub fn service(namespace: impl Into<String>, host: impl Into<String>) -> Self {
        Self::Service { namespace: namespace.into(), host: host.into() }
    }

    pub fn gateway(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Gateway { namespace: namespace.into(), name: name.into() }
    }

    /// The service that the resource is about; `None` for a gateway.
    pub fn as_service(&self) -> Option<NamespacedHostname> {
        match self {
            Self::Service { namespace, host } => Some(NamespacedHostname::new(namespace.as_str(), host.as_str())),
            Self::Gateway { .. } => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { namespace, host } => write!(f, "{namespace}/{host}"),
            Self::Gateway { namespace, name } => write!(f, "{GATEWAY}{namespace}/{name}"),
        }
    }
}

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            // A namespace may be called `gateway`: the number of parts tells them apart.
            ["gateway", namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::gateway(*namespace, *name))
            }
            [namespace, host] if !namespace.is_empty() && !host.is_empty() => Ok(Self::service(*namespace, *host)),
            _ => Err(NoName(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for name in [Name::service("gateway", "a.example"), Name::gateway("shop", "waypoint")] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for text in ["", "a", "/a", "a/", "a/b/c", "gateway//b", "gateway/a/b/c"] {
            assert_eq!(text.parse::<Name>(), Err(NoName(text.to_owned())));
        }
    }
}
