//! Redirects: the `location` that a client is sent to.

use serde::Serialize;

use crate::rewrite::{NotAbsolute, PathRewrite};
use crate::{PathMatch, Request};

/// Redirect with each part of the location that is not the request's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host, perhaps with a port. The request's port is dropped with its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    pub port: RedirectPort,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<RedirectPath>,
}

/// Port of a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPort {
    /// That of the authority. One of the request's own goes if it is the default of its scheme and the scheme changes.
    #[default]
    Keep,
    /// This one, also where it is the default of the scheme (VirtualService).
    Number(u16),
    /// This one, unless it is the default of the scheme (Gateway API).
    UnlessDefault(u16),
}

/// Path of a location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPath {
    /// This one; with a query of its own it replaces the request's.
    Full(String),
    Rewrite(PathRewrite),
}

impl Redirect {
    /// The location for a request whose path matched `pattern`.
    pub fn location(&self, pattern: &PathMatch, request: &Request<'_>) -> Result<String, NotAbsolute> {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let authority = self.authority(scheme, request);
        let target = match &self.path {
            None => request.target.to_owned(),
            Some(RedirectPath::Full(path)) => match request.query() {
                Some(query) if !path.contains('?') => format!("{path}?{query}"),
                Some(_) | None => path.clone(),
            },
            Some(RedirectPath::Rewrite(rewrite)) => rewrite.rewrite(pattern, request.target)?,
        };
        Ok(format!("{scheme}://{authority}{target}"))
    }

    fn authority(&self, scheme: &str, request: &Request<'_>) -> String {
        let own = self.authority.as_deref();
        let (host, port) = split_port(own.unwrap_or(request.authority));
        let port = match self.port {
            RedirectPort::Number(number) => Some(number),
            RedirectPort::UnlessDefault(number) => Some(number).filter(|number| default_port(scheme) != Some(*number)),
            RedirectPort::Keep if own.is_none() && scheme != request.scheme => {
                port.filter(|number| default_port(request.scheme) != Some(*number))
            }
            RedirectPort::Keep => port,
        };
        port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host and port of an authority; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    let split = authority.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::testing::request;

    const NONE: Redirect =
        Redirect { status: 301, scheme: None, authority: None, port: RedirectPort::Keep, path: None };

    fn location(redirect: &Redirect, pattern: &PathMatch, authority: &str, target: &str) -> String {
        let headers = HeaderMap::new();
        redirect.location(pattern, &Request { authority, target, ..request(&headers) }).unwrap()
    }

    #[test]
    fn locations_are_as_measured_on_envoy() {
        let https = Redirect { scheme: Some("https".into()), ..NONE };
        let host = |host: &str| Redirect { authority: Some(host.into()), ..NONE };
        let port = |number| Redirect { port: RedirectPort::Number(number), ..NONE };
        let path = |path: &str| Redirect { path: Some(RedirectPath::Full(path.into())), ..NONE };
        let here = "h.example:8080";
        for (redirect, authority, target, expected) in [
            (https.clone(), here, "/a?q=1", "https://h.example:8080/a?q=1"),
            (https.clone(), "h.example", "/a", "https://h.example/a"),
            (https.clone(), "h.example:80", "/a", "https://h.example/a"),
            (https.clone(), "h.example:443", "/a", "https://h.example:443/a"),
            (host("other.example"), here, "/a?q=1", "http://other.example/a?q=1"),
            (host("other.example:99"), here, "/a", "http://other.example:99/a"),
            (port(8443), here, "/a", "http://h.example:8443/a"),
            (port(80), here, "/a", "http://h.example:80/a"),
            (port(8443), "[::1]:8080", "/a", "http://[::1]:8443/a"),
            (port(8443), "[::1]", "/a", "http://[::1]:8443/a"),
            (Redirect { port: RedirectPort::Number(443), ..https.clone() }, here, "/a", "https://h.example:443/a"),
            (
                Redirect { authority: Some("o.example".into()), port: RedirectPort::Number(8443), ..https },
                here,
                "/a",
                "https://o.example:8443/a",
            ),
            (path("/new"), here, "/a?q=1", "http://h.example:8080/new?q=1"),
            (path("/new?x=1"), here, "/a?q=1", "http://h.example:8080/new?x=1"),
            (path("/new"), "h.example:80", "/a", "http://h.example:80/new"),
            (path("/new"), "[::1]:8080", "/a", "http://[::1]:8080/new"),
            (NONE, here, "/a", "http://h.example:8080/a"),
        ] {
            assert_eq!(location(&redirect, &PathMatch::Any, authority, target), expected, "{redirect:?}");
        }
    }

    #[test]
    fn a_prefix_is_replaced_in_the_way_of_its_api() {
        let rewrite = |rewrite| Redirect { path: Some(RedirectPath::Rewrite(rewrite)), ..NONE };
        let bytes = rewrite(PathRewrite::Matched("/moved".into()));
        let pattern = PathMatch::Prefix("/r/prefix".into());
        assert_eq!(location(&bytes, &pattern, "h:1", "/r/prefix/a?q=1"), "http://h:1/moved/a?q=1");
        assert_eq!(location(&bytes, &pattern, "h:1", "/r/prefixa"), "http://h:1/moveda");
        let elements = rewrite(PathRewrite::Elements("/".into()));
        assert_eq!(location(&elements, &PathMatch::elements("/r/sep"), "h:1", "/r/sep/a?q=1"), "http://h:1/a?q=1");
        assert_eq!(location(&elements, &PathMatch::elements("/r/sep"), "h:1", "/r/sep"), "http://h:1/");
    }

    #[test]
    fn the_gateway_api_leaves_out_a_default_port() {
        let to = |scheme: Option<&str>, port| Redirect {
            scheme: scheme.map(str::to_owned),
            port: RedirectPort::UnlessDefault(port),
            ..NONE
        };
        for (redirect, expected) in [
            (to(Some("https"), 443), "https://h/a"),
            (to(Some("https"), 8443), "https://h:8443/a"),
            (to(None, 80), "http://h/a"),
            (to(None, 9080), "http://h:9080/a"),
        ] {
            assert_eq!(location(&redirect, &PathMatch::Any, "h:9080", "/a"), expected, "{redirect:?}");
        }
    }
}
