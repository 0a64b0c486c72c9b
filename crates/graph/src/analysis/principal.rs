//! Comparison of patterns with identities of workloads, which have one form: `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.

use crate::rule::StringMatch;

/// The identity of a service account, without `spiffe://`.
pub(crate) fn principal(trust_domain: &str, namespace: &str, account: &str) -> String {
    format!("{trust_domain}/ns/{namespace}/sa/{account}")
}

/// Namespace and service account of an identity in this trust domain.
pub(crate) fn parse<'a>(principal: &'a str, trust_domain: &str) -> Option<(&'a str, &'a str)> {
    let (namespace, account) = principal.strip_prefix(trust_domain)?.strip_prefix("/ns/")?.split_once("/sa/")?;
    // A further slash would be another form of SPIFFE ID, which no workload of a mesh has.
    let is_name = |name: &str| !name.is_empty() && !name.contains('/');
    (is_name(namespace) && is_name(account)).then_some((namespace, account))
}

/// Returns true if an identity of this trust domain could satisfy the match, whatever namespaces and accounts exist;
/// with a namespace, an identity of that namespace.
pub(crate) fn fits(wanted: &StringMatch, trust_domain: &str, namespace: Option<&str>) -> bool {
    // `None` stands for any name: the account is never known here.
    let form = [Some(trust_domain), Some("ns"), namespace, Some("sa"), None];
    let whole = |part: &str, wanted: Option<&str>| match wanted {
        Some(wanted) => part == wanted,
        None => !part.is_empty(),
    };
    match wanted {
        StringMatch::Exact(text) => {
            let parts: Vec<_> = text.split('/').collect();
            parts.len() == form.len() && parts.iter().zip(form).all(|(part, wanted)| whole(part, wanted))
        }
        StringMatch::Prefix(text) => {
            let parts: Vec<_> = text.split('/').collect();
            let Some((last, before)) = parts.split_last() else { return false };
            // A prefix ends anywhere: all of its parts but the last are whole, and the last one begins the next part of
            // an identity.
            parts.len() <= form.len()
                && before.iter().zip(form).all(|(part, wanted)| whole(part, wanted))
                && form[before.len()].is_none_or(|wanted| wanted.starts_with(last))
        }
        StringMatch::Suffix(text) => {
            let parts: Vec<_> = text.split('/').collect();
            let Some((first, after)) = parts.split_first() else { return false };
            // The same from the other end: a suffix may begin in the middle of a part.
            let Some(skipped) = form.len().checked_sub(parts.len()) else { return false };
            after.iter().zip(&form[skipped + 1..]).all(|(part, wanted)| whole(part, *wanted))
                && form[skipped].is_none_or(|wanted| wanted.ends_with(first))
        }
        // Any identity will do.
        StringMatch::Presence => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn can(pattern: StringMatch) -> bool {
        fits(&pattern, "td", None)
    }

    #[test]
    fn only_what_has_the_form_of_an_identity_can_match() {
        let exact = |text: &str| can(StringMatch::Exact(text.to_owned()));
        assert!(exact("td/ns/a/sa/b"));
        assert!(!exact("spiffe://td/ns/a/sa/b") && !exact("other/ns/a/sa/b") && !exact("td/ns/a/sa/") && !exact("a/b"));

        let prefix = |text: &str| can(StringMatch::Prefix(text.to_owned()));
        assert!(prefix("td/ns/a/") && prefix("td/ns/a/sa/b") && prefix("td/n") && prefix("t"));
        assert!(!prefix("spiffe://td/") && !prefix("tda") && !prefix("td/ns/a/sb") && !prefix("td/ns/a/sa/b/c"));

        let suffix = |text: &str| can(StringMatch::Suffix(text.to_owned()));
        assert!(suffix("/sa/b") && suffix("b") && suffix("d/ns/a/sa/b") && suffix("a/sa/b"));
        assert!(!suffix("/serviceaccount/b") && !suffix("xd/ns/a/sa/b") && !suffix("x/td/ns/a/sa/b"));
    }

    #[test]
    fn a_pattern_for_one_namespace_fits_no_other() {
        let prefix = StringMatch::Prefix("td/ns/a/".to_owned());

        assert!(fits(&prefix, "td", Some("a")) && !fits(&prefix, "td", Some("ab")));
    }

    #[test]
    fn an_identity_is_taken_apart() {
        assert_eq!(parse("td/ns/a/sa/b", "td"), Some(("a", "b")));
        assert_eq!(parse("td2/ns/a/sa/b", "td"), None);
        assert_eq!(parse(&principal("td", "a", "b"), "td"), Some(("a", "b")));
    }
}
