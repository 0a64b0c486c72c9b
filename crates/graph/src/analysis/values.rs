//! Values of policies that match nothing: each with the reason, and what was probably meant.

use std::net::IpAddr;

use ipnet::IpNet;
use kube_types::istio::{Attribute, ConditionKey, When};
use kube_types::similar::{hint, nearest};

use super::principal;
use super::world::World;
use crate::authorization::value;
use crate::finding::{Reason, Severity};

const SCHEME: &str = "spiffe://";

/// Kinds of values, by what they are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Principal,
    TrustDomain,
    Namespace,
    ServiceAccount,
    Block,
    Port,
}

/// Reason why a value does not do what it was probably written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) reason: Reason,
    pub(super) severity: Severity,
    /// Effect on the match.
    pub(super) effect: Match,
    pub(super) why: String,
}

/// Extent to which a doubtful value matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It matches nothing, whatever exists.
    Never,
    /// It matches nothing that exists now.
    NothingNow,
    /// It matches something else than it looks like, or another form is clearer.
    Other,
}

impl Doubt {
    fn never(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, severity: Severity::Warning, effect: Match::Never, why: why.into() }
    }

    fn absent(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, severity: Severity::Warning, effect: Match::NothingNow, why: why.into() }
    }
}

impl Kind {
    /// Noun that stands before a value in messages.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::TrustDomain => "trust domain",
            Self::Namespace => "namespace",
            Self::ServiceAccount => "service account",
            Self::Block => "IP block",
            Self::Port => "port",
        }
    }

    /// Kind of the values of a condition that node proxies can match.
    pub(super) fn of_condition(when: &When) -> Option<Self> {
        Some(match ConditionKey::of(&when.key)?.attribute {
            Attribute::SourcePrincipal => Self::Principal,
            Attribute::SourceTrustDomain => Self::TrustDomain,
            Attribute::SourceNamespace => Self::Namespace,
            Attribute::SourceServiceAccount => Self::ServiceAccount,
            Attribute::SourceIp | Attribute::DestinationIp => Self::Block,
            Attribute::DestinationPort => Self::Port,
            Attribute::Request => return None,
        })
    }

    /// Checks a value of a policy in `namespace`. The conversion reports values that do not parse, and ports are
    /// compared with each workload's.
    pub(super) fn doubt(self, text: &str, world: &World, namespace: &str) -> Option<Doubt> {
        match self {
            Self::Principal => principal_doubt(text, world),
            Self::TrustDomain => trust_domain_doubt(text, world),
            Self::Namespace => namespace_doubt(text, world),
            Self::ServiceAccount => account_doubt(text, world, namespace),
            Self::Block => block_doubt(text),
            Self::Port => None,
        }
    }
}

fn principal_doubt(text: &str, world: &World) -> Option<Doubt> {
    let domain = &world.trust_domain;
    // A value that does not parse is reported by the conversion.
    let wanted = value::text(text)?;
    if let Some(rest) = text.trim_start_matches('*').strip_prefix(SCHEME) {
        return Some(Doubt::never(
            Reason::InvalidPrincipal,
            format!("principals are written without {SCHEME}; did you mean {rest:?}?"),
        ));
    }
    // A whole identity can be taken apart and compared name by name; of a pattern only the form is known.
    if !text.contains('*') {
        let Some((trust_domain, namespace, name)) = parts(text) else {
            return Some(Doubt::never(Reason::InvalidPrincipal, form(text, domain)));
        };
        if trust_domain != domain {
            let meant = principal::principal(domain, namespace, name);
            return Some(Doubt::never(
                Reason::UnknownTrustDomain,
                format!("the trust domain of this mesh is {domain:?}, not {trust_domain:?}; did you mean {meant:?}?"),
            ));
        }
        return missing_account(world, namespace, name, |namespace, name| {
            principal::principal(domain, namespace, name)
        });
    }
    if !principal::fits(&wanted, domain, None) {
        return Some(Doubt::never(
            Reason::InvalidPrincipal,
            format!("invalid identity; identities have the form {domain}/ns/NAMESPACE/sa/SERVICE-ACCOUNT"),
        ));
    }
    let mut identities = world.accounts().map(|(namespace, name)| principal::principal(domain, namespace, name));
    let exists = identities.any(|identity| wanted.matches(&identity));
    (!exists).then(|| Doubt::absent(Reason::UnknownServiceAccount, "no service account has such an identity"))
}

/// Trust domain, namespace and account of an identity of any mesh.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (domain, rest) = text.split_once("/ns/")?;
    let (namespace, name) = rest.split_once("/sa/")?;
    let is_part = |part: &str| !part.is_empty() && !part.contains('/');
    (is_part(domain) && is_part(namespace) && is_part(name)).then_some((domain, namespace, name))
}

/// The form of a principal, and what was probably meant by something else.
fn form(text: &str, domain: &str) -> String {
    // The ways in which Kubernetes' RBAC and other meshes write a service account.
    let segments: Vec<_> = text.trim_start_matches("system:serviceaccount:").split(['/', ':']).collect();
    let meant = match segments.as_slice() {
        [namespace, name] => Some((*namespace, *name)),
        ["ns", namespace, "sa", name] | [.., "ns", namespace, "sa" | "serviceaccount", name] => {
            Some((*namespace, *name))
        }
        _ => None,
    };
    let form = format!("principals have the form {domain}/ns/NAMESPACE/sa/SERVICE-ACCOUNT");
    match meant {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            format!("{form}; did you mean {:?}?", principal::principal(domain, namespace, name))
        }
        Some(_) | None => form,
    }
}

fn trust_domain_doubt(text: &str, world: &World) -> Option<Doubt> {
    let domain = &world.trust_domain;
    let wanted = value::trust_domain(text)?;
    if let Some(rest) = text.strip_prefix(SCHEME) {
        let why = format!("trust domains are written without {SCHEME}; did you mean {rest:?}?");
        return Some(Doubt::never(Reason::UnknownTrustDomain, why));
    }
    let why = || format!("the trust domain of this mesh is {domain:?}; no peer has a different one");
    (!principal::fits(&wanted, domain, None)).then(|| Doubt::never(Reason::UnknownTrustDomain, why()))
}

fn namespace_doubt(text: &str, world: &World) -> Option<Doubt> {
    let wanted = value::text(text)?;
    if world.namespaces().any(|name| wanted.matches(name)) {
        return None;
    }
    // The stars of a pattern are no part of a name.
    let plain = text.trim_matches('*');
    if !is_label(plain) && !plain.is_empty() {
        let lower = plain.to_ascii_lowercase();
        let meant = if world.has_namespace(&lower) { format!("; did you mean {lower:?}?") } else { String::new() };
        let why = format!("namespace names contain only lowercase letters, digits and '-'{meant}");
        return Some(Doubt::never(Reason::UnknownNamespace, why));
    }
    let why = if text.contains('*') {
        "no namespace matches".to_owned()
    } else {
        format!("namespace not found{}", hint(text, world.namespaces()))
    };
    Some(Doubt::absent(Reason::UnknownNamespace, why))
}

fn account_doubt(text: &str, world: &World, namespace: &str) -> Option<Doubt> {
    let wanted = value::service_account(text, namespace)?;
    let is_qualified = text.contains('/');
    missing_account(world, &wanted.namespace, &wanted.name, |namespace, name| {
        if is_qualified { format!("{namespace}/{name}") } else { name.to_owned() }
    })
}

/// A service account that does not exist; `write` makes a value of the one that was probably meant.
fn missing_account(world: &World, namespace: &str, name: &str, write: impl Fn(&str, &str) -> String) -> Option<Doubt> {
    if world.has_account(namespace, name) {
        return None;
    }
    if !world.has_namespace(namespace) {
        let meant = nearest(namespace, world.namespaces());
        let meant = meant.map(|meant| format!("; did you mean {:?}?", write(meant, name))).unwrap_or_default();
        return Some(Doubt::absent(Reason::UnknownNamespace, format!("namespace {namespace:?} not found{meant}")));
    }
    // A near name in the same namespace is more likely meant than the same name elsewhere.
    let near = nearest(name, world.accounts_in(namespace)).map(|name| (namespace, name));
    let elsewhere = || {
        // Every namespace has the account `default`: finding it elsewhere says nothing.
        world.namespaces().find(|other| world.has_account(other, name) && name != "default").map(|other| (other, name))
    };
    let meant =
        near.or_else(elsewhere).map(|(namespace, name)| format!("; did you mean {:?}?", write(namespace, name)));
    let meant = meant.unwrap_or_default();
    let why = format!("service account {name:?} not found in namespace {namespace:?}{meant}");
    Some(Doubt::absent(Reason::UnknownServiceAccount, why))
}

fn block_doubt(text: &str) -> Option<Doubt> {
    let other =
        |why: String| Some(Doubt { reason: Reason::IpBlock, severity: Severity::Info, effect: Match::Other, why });
    let never = |why: String| Some(Doubt::never(Reason::IpBlock, why));
    let (address, length) = match text.parse::<IpNet>() {
        Ok(net) => (net.addr(), Some(net.prefix_len())),
        Err(_) => (text.parse::<IpAddr>().ok()?, None),
    };
    // `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2): the proxies compare IPv4 addresses as such.
    let mapped = match address {
        IpAddr::V6(six) => six.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    if let Some(four) = mapped {
        let meant = match length {
            None => four.to_string(),
            // The first 96 bits are the fixed prefix of mapped addresses; a shorter block holds more than IPv4.
            Some(length) if length >= 96 => format!("{four}/{}", length - 96),
            Some(_) => {
                return never(format!("no connection uses an IPv6 address of this block; did you mean {four}?"));
            }
        };
        return other(format!("it is an IPv4 address written as IPv6; it is treated as {meant}"));
    }
    // `0.0.0.0` alone is one address that nobody has; `0.0.0.0/0` was meant.
    if address.is_unspecified() && length.is_none_or(|length| length == full(address)) {
        return never(format!("no connection uses this address; did you mean {address}/0?"));
    }
    // An address without length has no bits beyond it.
    let net = IpNet::new(address, length?).ok()?;
    if net.trunc() == net {
        return None;
    }
    other(format!("bits beyond the length are set; it is treated as {}", net.trunc()))
}

const fn full(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Returns true if the text could be the name of a namespace (RFC 1123 label, upper case excluded).
fn is_label(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::world::Names;

    fn why(kind: Kind, text: &str) -> Option<(Match, String)> {
        let mut world = World::new("istio-system", "cluster.local");
        for account in ["cart", "default"] {
            world.exchange(None, Some(Names { namespace: "shop", account: Some(account), labels: None }));
        }
        kind.doubt(text, &world, "shop").map(|doubt| (doubt.effect, doubt.why))
    }

    fn assert_doubt(kind: Kind, text: &str, effect: Match, part: &str) {
        let (found, why) = why(kind, text).unwrap_or_else(|| panic!("no finding about {text:?}"));
        assert!(found == effect && why.contains(part), "{text:?}: {found:?}, {why}");
    }

    #[test]
    fn a_principal_has_to_be_an_identity_of_this_mesh_that_exists() {
        let meant = r#"did you mean "cluster.local/ns/shop/sa/cart"?"#;

        assert_eq!(why(Kind::Principal, "cluster.local/ns/shop/sa/cart"), None);
        assert_eq!(why(Kind::Principal, "*"), None);
        assert_eq!(why(Kind::Principal, "cluster.local/ns/shop/*"), None);
        assert_eq!(why(Kind::Principal, "*/sa/cart"), None);
        assert_doubt(Kind::Principal, "spiffe://cluster.local/ns/shop/sa/cart", Match::Never, meant);
        assert_doubt(Kind::Principal, "shop/cart", Match::Never, meant);
        assert_doubt(Kind::Principal, "system:serviceaccount:shop:cart", Match::Never, meant);
        assert_doubt(Kind::Principal, "ns/shop/sa/cart", Match::Never, meant);
        assert_doubt(Kind::Principal, "example.com/ns/shop/sa/cart", Match::Never, meant);
        assert_doubt(Kind::Principal, "cluster.local/ns/shop/sa/cat", Match::NothingNow, meant);
        assert_doubt(Kind::Principal, "cluster.local/ns/shpo/sa/cart", Match::NothingNow, meant);
        assert_doubt(Kind::Principal, "cluster.local/ns/default/sa/cart", Match::NothingNow, meant);
        assert_doubt(Kind::Principal, "cluster.local/ns/other/*", Match::NothingNow, "no service account");
        assert_doubt(Kind::Principal, "other.local/*", Match::Never, "invalid identity");
    }

    #[test]
    fn namespaces_accounts_and_trust_domains_have_to_exist() {
        assert_eq!(why(Kind::Namespace, "sh*"), None);
        assert_doubt(Kind::Namespace, "shops", Match::NothingNow, r#"did you mean "shop"?"#);
        assert_doubt(Kind::Namespace, "Shop", Match::Never, r#"did you mean "shop"?"#);
        assert_doubt(Kind::Namespace, "x-*", Match::NothingNow, "no namespace");
        assert_eq!(why(Kind::ServiceAccount, "cart"), None);
        assert_doubt(Kind::ServiceAccount, "crat", Match::NothingNow, r#"did you mean "cart"?"#);
        assert_doubt(Kind::ServiceAccount, "default/cart", Match::NothingNow, r#"did you mean "shop/cart"?"#);
        assert_eq!(why(Kind::TrustDomain, "cluster.local"), None);
        assert_eq!(why(Kind::TrustDomain, "cluster*"), None);
        assert_doubt(Kind::TrustDomain, "example.com", Match::Never, "cluster.local");
    }

    #[test]
    fn blocks_that_look_like_something_else_are_reported() {
        assert_eq!(why(Kind::Block, "10.0.0.0/8"), None);
        assert_eq!(why(Kind::Block, "0.0.0.0/0"), None);
        assert_eq!(why(Kind::Block, "10.1.2.3"), None);
        assert_doubt(Kind::Block, "10.1.2.3/16", Match::Other, "treated as 10.1.0.0/16");
        assert_doubt(Kind::Block, "::ffff:10.0.0.5", Match::Other, "treated as 10.0.0.5");
        assert_doubt(Kind::Block, "::ffff:10.0.0.0/104", Match::Other, "treated as 10.0.0.0/8");
        assert_doubt(Kind::Block, "::ffff:10.0.0.5/24", Match::Never, "IPv6");
        assert_doubt(Kind::Block, "0.0.0.0", Match::Never, "0.0.0.0/0");
    }
}
