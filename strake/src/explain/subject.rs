//! Names of pods, Services and addresses on the command line.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Something that opens or takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Pod(Name),
    Service(Name),
    /// Not said which: a Service of the name comes first, as applications call those.
    Either(Name),
    Address(IpAddr),
}

/// A name, in a namespace that may be said elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// A subject with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) subject: Subject,
    pub(crate) port: Option<u16>,
}

impl Name {
    /// The namespace and the name.
    pub(crate) fn within<'a>(&'a self, default: &'a str) -> (&'a str, &'a str) {
        (self.namespace.as_deref().unwrap_or(default), &self.name)
    }
}

const EXPECTED: &str =
    "expected NAME, NAMESPACE/NAME, pod/NAME, svc/NAME (each also KIND/NAMESPACE/NAME) or an IP address";

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| !is_name(part)) {
            return Err(format!("invalid name {text:?}: {EXPECTED}"));
        }
        let kind = parts.first().copied().filter(|_| parts.len() > 1).and_then(|kind| match kind {
            "pod" | "pods" | "po" => Some(Self::Pod as fn(Name) -> Self),
            "svc" | "service" | "services" => Some(Self::Service as fn(Name) -> Self),
            _ => None,
        });
        let named = |namespace: Option<&str>, name: &str| Name {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        match (kind, parts.as_slice()) {
            (Some(kind), [_, name]) => Ok(kind(named(None, name))),
            (Some(kind), [_, namespace, name]) => Ok(kind(named(Some(namespace), name))),
            (None, [name]) => Ok(Self::Either(named(None, name))),
            (None, [namespace, name]) => Ok(Self::Either(named(Some(namespace), name))),
            _ => Err(format!("invalid name {text:?}: {EXPECTED}")),
        }
    }
}

/// RFC 1123 names, as those of Kubernetes.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let subject = Subject::Address(address.ip().to_canonical());
            return Ok(Self { subject, port: Some(address.port()) });
        }
        // An IPv6 address without port has colons, too.
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { subject: Subject::Address(address.to_canonical()), port: None });
        }
        let Some((name, port)) = text.rsplit_once(':') else {
            return Ok(Self { subject: text.parse()?, port: None });
        };
        let number = port.parse::<u16>().ok().filter(|port| *port > 0);
        let number = number.ok_or_else(|| format!("invalid port {port:?}: expected 1 to 65535"))?;
        Ok(Self { subject: name.parse()?, port: Some(number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(namespace: Option<&str>, name: &str) -> Name {
        Name { namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn subjects_are_named_as_kubectl_names_them() {
        for (text, expected) in [
            ("db", Subject::Either(name(None, "db"))),
            ("shop/db", Subject::Either(name(Some("shop"), "db"))),
            ("pod/db-0", Subject::Pod(name(None, "db-0"))),
            ("svc/shop/db", Subject::Service(name(Some("shop"), "db"))),
            ("10.0.0.1", Subject::Address("10.0.0.1".parse().unwrap())),
            ("::ffff:10.0.0.1", Subject::Address("10.0.0.1".parse().unwrap())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "a/b/c", "pod/a/b/c", "A", "a b", "/a"] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_stands_behind_a_colon() {
        let port = |text: &str| text.parse::<Destination>().map(|destination| destination.port);

        assert_eq!(port("shop/db:80"), Ok(Some(80)));
        assert_eq!(port("shop/db"), Ok(None));
        assert_eq!(port("fd00::1"), Ok(None));
        assert_eq!(port("[fd00::1]:80"), Ok(Some(80)));
        assert_eq!(port("10.0.0.1:80"), Ok(Some(80)));
        assert!(port("db:http").unwrap_err().starts_with("invalid port \"http\""));
        assert!(port("db:0").is_err() && port("db:70000").is_err());
    }
}
