//! Values of policy fields, parsed to the patterns, blocks and ports that node proxies compare.

use contract::address::parse_block;
use ipnet::IpNet;

use crate::rule::{ServiceAccount, StringMatch};

/// `*` any but empty, `abc*` prefix, `*abc` suffix, else exactly.
pub(crate) fn text(value: &str) -> Option<StringMatch> {
    let kind = if value.is_empty() {
        return None;
    } else if value == "*" {
        StringMatch::Presence
    } else if let Some(prefix) = value.strip_suffix('*') {
        StringMatch::Prefix(prefix.to_owned())
    } else if let Some(suffix) = value.strip_prefix('*') {
        StringMatch::Suffix(suffix.to_owned())
    } else {
        StringMatch::Exact(value.to_owned())
    };
    // `*abc*` would be matched with a star in it, which no name has.
    let has_star = match &kind {
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => text.contains('*'),
        StringMatch::Presence => false,
    };
    (!has_star).then_some(kind)
}

/// A trust domain as a beginning of principals: `td` and `td*`, not `*td`.
pub(crate) fn trust_domain(value: &str) -> Option<StringMatch> {
    let kind = match value {
        "" => return None,
        "*" => StringMatch::Presence,
        // The end of a trust domain is in the middle of a principal, which no pattern of the proxies reaches.
        _ if value.starts_with('*') => return None,
        _ => match value.strip_suffix('*') {
            Some(prefix) if prefix.contains('*') => return None,
            Some(prefix) => StringMatch::Prefix(prefix.to_owned()),
            None if value.contains('*') => return None,
            // With the slash: `mesh` must not match `mesh-2`.
            None => StringMatch::Prefix(format!("{value}/")),
        },
    };
    Some(kind)
}

/// `namespace/name`, or `name` in the policy's namespace.
pub(crate) fn service_account(value: &str, namespace: &str) -> Option<ServiceAccount> {
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    // Node proxies compare an account as a whole: it has no patterns.
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
    (plain(namespace) && plain(name)).then(|| ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// An address or a block of them, as node proxies read it from a file, too.
pub(crate) fn block(value: &str) -> Option<IpNet> {
    parse_block(value).map(|block| block.trunc())
}

pub(crate) fn port(value: &str) -> Option<u16> {
    // Port 0 is no port of a connection.
    value.parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_in_the_middle_are_refused() {
        assert!(text("a*b").is_none());
        assert!(text("*a*").is_none());
        assert!(text("").is_none());
        assert!(text("*a").is_some());
    }

    #[test]
    fn a_trust_domain_is_a_beginning_of_principals() {
        assert_eq!(trust_domain("td"), Some(StringMatch::Prefix("td/".to_owned())));
        assert_eq!(trust_domain("td*"), Some(StringMatch::Prefix("td".to_owned())));
        assert_eq!(trust_domain("*"), Some(StringMatch::Presence));
        assert_eq!(trust_domain("*td"), None);
    }

    #[test]
    fn ports_and_blocks_are_checked() {
        assert_eq!(port("80"), Some(80));
        assert_eq!((port("0"), port("65536"), port("http")), (None, None, None));
        assert_eq!(block("10.0.0.0/8").map(|block| block.prefix_len()), Some(8));
        assert_eq!(block("::1").map(|block| block.prefix_len()), Some(128));
        assert_eq!(block("::ffff:10.0.0.5").map(|block| block.to_string()).as_deref(), Some("10.0.0.5/32"));
        assert!(block("10.0.0.0/33").is_none() && block("::ffff:10.0.0.5/24").is_none());
        assert!(service_account("a/b/c", "n").is_none());
    }
}
