//! The SPIFFE ids of the mesh: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//! Other forms of SPIFFE ids are not identities here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SCHEME: &str = "spiffe://";
/// Bytes, from the SPIFFE specification, section 2.3.
const MAX_URI_BYTES: usize = 2048;

/// Reason for which a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not five segments `<trust domain>/ns/<namespace>/sa/<service account>` after `spiffe://`.
    #[error("{0:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
    /// A name is empty or has a character other than letters, digits, `-`, `.`, `_`, `~` (a trust domain also `:`).
    #[error("{value:?} is not a {part}")]
    Part {
        /// Name of the part.
        part: &'static str,
        /// Text that was found.
        value: String,
    },
    /// Longer than 2048 bytes.
    #[error("an identity of {0} bytes is too long, at most 2048 are allowed")]
    TooLong(usize),
}

impl IdentityError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Form(_) => "identity_form",
            Self::Part { .. } => "identity_part",
            Self::TooLong(_) => "identity_too_long",
        }
    }
}

/// The name of a trust domain, `cluster.local` by default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        // Istio's default as well.
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_trust_domain(text)?;
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a workload. One allocation, shared by all clones.
#[derive(Clone)]
pub struct Identity {
    uri: Arc<str>,
    /// End of the trust domain, in bytes of `uri`.
    trust_domain_end: u16,
    /// End of the namespace, in bytes of `uri`.
    namespace_end: u16,
}

impl Identity {
    /// Puts an identity together from its names.
    pub fn new(trust_domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        Self::from_parts(trust_domain.as_str(), namespace, service_account)
    }

    fn from_parts(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        // Before they are joined: with a `/` in a name two different triples could become one URI.
        check_trust_domain(trust_domain)?;
        check_name("namespace", namespace)?;
        check_name("service account", service_account)?;
        let uri = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}");
        let trust_domain_end = SCHEME.len() + trust_domain.len();
        let namespace_end = trust_domain_end + "/ns/".len() + namespace.len();
        // Not reached by the conversions: the limit fits into 16 bits.
        let too_long = |_| IdentityError::TooLong(uri.len());
        if uri.len() > MAX_URI_BYTES {
            return Err(IdentityError::TooLong(uri.len()));
        }
        Ok(Self {
            trust_domain_end: u16::try_from(trust_domain_end).map_err(too_long)?,
            namespace_end: u16::try_from(namespace_end).map_err(too_long)?,
            uri: Arc::from(uri),
        })
    }

    /// The whole URI, with `spiffe://`.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The URI without its scheme, as policies and metrics write it: `cluster.local/ns/default/sa/web`.
    pub fn principal(&self) -> &str {
        &self.uri[SCHEME.len()..]
    }

    /// For example `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..usize::from(self.trust_domain_end)]
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.uri[usize::from(self.trust_domain_end) + "/ns/".len()..usize::from(self.namespace_end)]
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.uri[usize::from(self.namespace_end) + "/sa/".len()..]
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // First, and without the text: a peer chooses it, and every other error carries a copy into the log.
        if text.len() > MAX_URI_BYTES {
            return Err(IdentityError::TooLong(text.len()));
        }
        let form = || IdentityError::Form(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(form)?;
        let mut segments = rest.split('/');
        // `<trust domain>/ns/<namespace>/sa/<service account>`, and nothing behind it.
        let five: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
        match five {
            [Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account)]
                if segments.next().is_none() =>
            {
                Self::from_parts(trust_domain, namespace, account)
            }
            _ => Err(form()),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        // Clones are the ordinary case; they need no comparison of texts.
        Arc::ptr_eq(&self.uri, &other.uri) || self.uri == other.uri
    }
}

impl Eq for Identity {}

impl PartialOrd for Identity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Identity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uri.cmp(&other.uri)
    }
}

impl std::hash::Hash for Identity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Of the text and not of the pointer, as equality may be that of two texts.
        self.uri.hash(state);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.uri)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An owned text: a borrowed one fails where JSON has an escape in it.
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn check_name(part: &'static str, value: &str) -> Result<(), IdentityError> {
    check(part, value, is_unreserved)
}

/// `:` occurs in trust domains of Google's domain-scoped projects (`example.com:project.svc.id.goog`).
fn check_trust_domain(value: &str) -> Result<(), IdentityError> {
    check("trust domain", value, |byte| is_unreserved(byte) || byte == b':')
}

fn check(part: &'static str, value: &str, allowed: impl Fn(u8) -> bool) -> Result<(), IdentityError> {
    if value.is_empty() || !value.bytes().all(allowed) {
        return Err(IdentityError::Part { part, value: value.to_owned() });
    }
    Ok(())
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_identity_shows_its_parts() {
        let id: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();

        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), "shop");
        assert_eq!(id.service_account(), "web");
        assert_eq!(id.principal(), "cluster.local/ns/shop/sa/web");
        assert_eq!(id, Identity::new(&TrustDomain::default(), "shop", "web").unwrap());
    }

    #[test]
    fn anything_but_five_segments_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://td",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td//ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "td/ns/a/sa/b",
        ] {
            assert!(matches!(text.parse::<Identity>(), Err(IdentityError::Form(_))), "{text}");
        }
    }

    #[test]
    fn empty_and_odd_names_are_refused() {
        for text in [
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b?c",
            "spiffe://td/ns/a/sa/b%2f",
            "spiffe://td/ns/a b/sa/c",
            "spiffe://td/ns/a/sa/\u{fc}",
            "spiffe://td/ns/a/sa/b\0",
        ] {
            assert!(matches!(text.parse::<Identity>(), Err(IdentityError::Part { .. })), "{text}");
        }
        assert!("".parse::<TrustDomain>().is_err());
        assert!("a/b".parse::<TrustDomain>().is_err());
    }

    #[test]
    fn a_very_long_identity_is_refused() {
        let text = format!("spiffe://td/ns/a/sa/{}", "b".repeat(4096));

        assert!(matches!(text.parse::<Identity>(), Err(IdentityError::TooLong(_))));
        assert!(Identity::new(&TrustDomain::default(), &"a".repeat(70_000), "b").is_err());
    }

    proptest! {
        #[test]
        fn parts_survive_a_round_trip(td in "[a-z0-9.:_-]{1,40}", ns in "[a-zA-Z0-9._~-]{1,63}", sa in "[a-zA-Z0-9._~-]{1,63}") {
            let id = Identity::new(&td.parse().unwrap(), &ns, &sa).unwrap();
            let again: Identity = id.to_string().parse().unwrap();

            prop_assert_eq!(&again, &id);
            prop_assert_eq!(again.trust_domain(), td);
            prop_assert_eq!(again.namespace(), ns);
            prop_assert_eq!(again.service_account(), sa);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(spiffe://)?[^\u{0}]{0,80}") {
            if let Ok(id) = text.parse::<Identity>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
