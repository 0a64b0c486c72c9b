//! Values of policy fields to what is matched.

use std::net::IpAddr;

use contract::address::parse_block;
use proto::security::string_match::MatchType;
use proto::security::{Address, ServiceAccountMatch, StringMatch};

/// `*` any but empty, `abc*` prefix, `*abc` suffix, else exactly.
pub(crate) fn text(value: &str) -> Option<StringMatch> {
    let kind = if value.is_empty() {
        return None;
    } else if value == "*" {
        MatchType::Presence(())
    } else if let Some(prefix) = value.strip_suffix('*') {
        MatchType::Prefix(prefix.to_owned())
    } else if let Some(suffix) = value.strip_prefix('*') {
        MatchType::Suffix(suffix.to_owned())
    } else {
        MatchType::Exact(value.to_owned())
    };
    // `*abc*` would be matched with a star in it, which no name has.
    let has_star = match &kind {
        MatchType::Exact(text) | MatchType::Prefix(text) | MatchType::Suffix(text) => text.contains('*'),
        MatchType::Presence(()) => false,
    };
    (!has_star).then_some(StringMatch { match_type: Some(kind) })
}

/// A trust domain as a beginning of principals: `td` and `td*`, not `*td`.
pub(crate) fn trust_domain(value: &str) -> Option<StringMatch> {
    let kind = match value {
        "" => return None,
        "*" => MatchType::Presence(()),
        _ if value.starts_with('*') => return None,
        _ => match value.strip_suffix('*') {
            Some(prefix) if prefix.contains('*') => return None,
            Some(prefix) => MatchType::Prefix(prefix.to_owned()),
            None if value.contains('*') => return None,
            None => MatchType::Prefix(format!("{value}/")),
        },
    };
    Some(StringMatch { match_type: Some(kind) })
}

/// `namespace/name`, or `name` in the policy's namespace.
pub(crate) fn service_account(value: &str, namespace: &str) -> Option<ServiceAccountMatch> {
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
    (plain(namespace) && plain(name))
        .then(|| ServiceAccountMatch { namespace: namespace.to_owned(), service_account: name.to_owned() })
}

/// An address or a block of them, as node proxies read it from a file, too.
pub(crate) fn block(value: &str) -> Option<Address> {
    let net = parse_block(value)?.trunc();
    let address = match net.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Some(Address { address, length: net.prefix_len().into() })
}

pub(crate) fn port(value: &str) -> Option<u32> {
    value.parse::<u16>().ok().filter(|port| *port > 0).map(u32::from)
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
        let kind = |value| trust_domain(value).and_then(|value| value.match_type);

        assert_eq!(kind("td"), Some(MatchType::Prefix("td/".to_owned())));
        assert_eq!(kind("td*"), Some(MatchType::Prefix("td".to_owned())));
        assert_eq!(kind("*"), Some(MatchType::Presence(())));
        assert_eq!(kind("*td"), None);
    }

    #[test]
    fn ports_and_blocks_are_checked() {
        assert_eq!(port("80"), Some(80));
        assert_eq!((port("0"), port("65536"), port("http")), (None, None, None));
        assert_eq!(block("10.0.0.0/8").map(|block| block.length), Some(8));
        assert_eq!(block("::1").map(|block| block.length), Some(128));
        assert_eq!(block("::ffff:10.0.0.5").map(|block| (block.address.len(), block.length)), Some((4, 32)));
        assert!(block("10.0.0.0/33").is_none() && block("::ffff:10.0.0.5/24").is_none());
        assert!(service_account("a/b/c", "n").is_none());
    }
}
