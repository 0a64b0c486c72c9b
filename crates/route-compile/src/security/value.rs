//! Values of policy fields, parsed to the patterns, blocks and ports that a waypoint compares.

use model::{ServiceAccountMatch, StringMatch};
use policy::http::{PathMatch, PathTemplate};

use super::Settings;

/// A pointer to the mesh's own trust domain, whatever its name is, as in Istio.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// Reads `*` as any but empty, `abc*` as a prefix, `*abc` as a suffix, else the text itself.
pub(super) fn text(value: &str) -> Result<StringMatch, String> {
    let found = match value {
        "" => return Err("expected text".to_owned()),
        "*" => StringMatch::Presence(),
        _ => match (value.strip_suffix('*'), value.strip_prefix('*')) {
            (Some(prefix), _) => StringMatch::Prefix(prefix.into()),
            (None, Some(suffix)) => StringMatch::Suffix(suffix.into()),
            (None, None) => StringMatch::Exact(value.into()),
        },
    };
    let has_star = match &found {
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => text.contains('*'),
        StringMatch::Presence() => false,
    };
    if has_star { Err("expected one star, at the beginning or at the end".to_owned()) } else { Ok(found) }
}

/// Reads a pattern of identities. One of the mesh's own trust domain is of each of its names.
pub(super) fn principals(value: &str, settings: &Settings) -> Result<Vec<StringMatch>, String> {
    let found = text(value)?;
    let of_domain = |text: &str| {
        let (domain, rest) = text.split_once('/')?;
        let names = || std::iter::once(&settings.trust_domain).chain(&settings.trust_domain_aliases);
        let is_own = domain == LOCAL_TRUST_DOMAIN || names().any(|name| name == domain);
        is_own.then(|| names().map(|name| format!("{name}/{rest}")).collect::<Vec<_>>())
    };
    let all = match &found {
        StringMatch::Exact(text) => {
            of_domain(text).map(|all| all.into_iter().map(|t| StringMatch::Exact(t.into())).collect())
        }
        StringMatch::Prefix(text) => {
            of_domain(text).map(|all| all.into_iter().map(|t| StringMatch::Prefix(t.into())).collect())
        }
        StringMatch::Suffix(_) | StringMatch::Presence() => None,
    };
    Ok(all.unwrap_or_else(|| vec![found]))
}

/// Reads a path, with a star at one end or with templates.
pub(super) fn path(value: &str) -> Result<PathMatch, String> {
    if PathTemplate::is_template(value) {
        return value.parse().map(PathMatch::Template).map_err(|error: policy::http::TemplateError| error.to_string());
    }
    text(value).map(PathMatch::Text)
}

/// Reads `namespace/name`, or `name` in the policy's namespace.
pub(super) fn service_account(value: &str, namespace: &str) -> Result<ServiceAccountMatch, String> {
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
    if is_plain(namespace) && is_plain(name) {
        Ok(ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() })
    } else {
        Err("expected NAMESPACE/NAME or NAME, without stars".to_owned())
    }
}

pub(super) fn port(value: &str) -> Result<u16, String> {
    // Port 0 is no port of a connection.
    value.parse().ok().filter(|port| *port > 0).ok_or_else(|| "expected a port number from 1 to 65535".to_owned())
}
