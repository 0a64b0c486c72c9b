//! Places of a request that tokens are in.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName};

use crate::JwtRule;

/// The parts of a request that a token may be in.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub method: &'a str,
    /// Path with query.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
}

/// A place that a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location<'a> {
    Header { name: &'a HeaderName, prefix: &'a str },
    Param(&'a str),
    Cookie(&'a str),
}

impl<'a> Location<'a> {
    /// Sorts as Envoy does: headers, parameters, cookies, each by name.
    pub(crate) fn rank(&self) -> (u8, &'a str, &'a str) {
        match *self {
            Self::Header { name, prefix } => (0, name.as_str(), prefix),
            Self::Param(name) => (1, name, ""),
            Self::Cookie(name) => (2, name, ""),
        }
    }
}

static BEARER: HeaderName = AUTHORIZATION;

/// Places of a rule; the defaults of RFC 6750 for a rule that names none.
pub(crate) fn locations(rule: &JwtRule) -> Vec<Location<'_>> {
    let JwtRule { from_headers, from_params, from_cookies, .. } = rule;
    if from_headers.is_empty() && from_params.is_empty() && from_cookies.is_empty() {
        return vec![Location::Header { name: &BEARER, prefix: "Bearer " }, Location::Param("access_token")];
    }
    let headers = from_headers.iter().map(|header| Location::Header { name: &header.name, prefix: &header.prefix });
    let params = from_params.iter().map(|name| Location::Param(name));
    headers.chain(params).chain(from_cookies.iter().map(|name| Location::Cookie(name))).collect()
}

impl Parts<'_> {
    /// Tokens at a place. Each line of a header, each parameter and each cookie of the name is one: the destination may
    /// look at any of them.
    pub(crate) fn tokens(&self, location: Location<'_>) -> Vec<Cow<'_, str>> {
        match location {
            Location::Header { name, prefix } => {
                let lines = self.headers.get_all(name).into_iter();
                lines.filter_map(|line| header_token(line.as_bytes(), prefix)).collect()
            }
            Location::Param(name) => {
                let query = self.target.split_once('?').map_or("", |(_, query)| query);
                let pairs = form_urlencoded::parse(query.as_bytes());
                pairs.filter(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value).collect()
            }
            Location::Cookie(name) => {
                let lines = self.headers.get_all(COOKIE).into_iter().map(|line| line.as_bytes());
                let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
                pairs.filter_map(|pair| cookie_value(pair.trim_ascii(), name)).collect()
            }
        }
    }

    /// Returns true if the request asks what another origin may do (CORS preflight). Browsers send no token with it.
    pub(crate) fn is_preflight(&self) -> bool {
        let has_value = |name: &str| self.headers.get(name).is_some_and(|value| !value.is_empty());
        self.method == "OPTIONS" && has_value("origin") && has_value("access-control-request-method")
    }
}

fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    (!value.is_empty()).then(|| String::from_utf8_lossy(value))
}

/// The text behind the prefix, whose letter case does not count (RFC 9110 section 11.1). `None`: no token is here.
fn header_token<'a>(line: &'a [u8], prefix: &str) -> Option<Cow<'a, str>> {
    let begins = line.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()));
    let token = line.get(prefix.len()..).filter(|_| begins)?.trim_ascii();
    // What is not text is not a token either: it is found malformed.
    (!token.is_empty()).then(|| String::from_utf8_lossy(token))
}
