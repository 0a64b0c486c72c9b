//! A request as routing sees it, and its client. It borrows everything: nothing is copied for a match.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::Value;

/// Labels of a workload.
pub type Labels = BTreeMap<String, String>;

/// The workload that sent a request, as the certificate of its tunnel and discovery describe it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source<'a> {
    /// Namespace of the client's identity; `None` if its identity has none.
    pub namespace: Option<&'a str>,
    /// Labels of the client's pod; `None` if the pod is not known, which no match on labels accepts.
    pub labels: Option<&'a Labels>,
}

/// A request. The port of the service is not in it: each has a table of its own.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// `http` or `https`, as the client's application used it.
    pub scheme: &'a str,
    /// The `Host` header or `:authority`, with the port if it has one.
    pub authority: &'a str,
    /// Normalised path with query; see [`crate::normalise()`].
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    pub source: Source<'a>,
    /// Verified claims of the request's JWT; `None` without one.
    pub claims: Option<&'a Value>,
}

impl<'a> Request<'a> {
    /// The path without its query.
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query as it was sent, without the question mark.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// First value of a query parameter, not decoded; empty for a parameter without `=`. Names are compared as they were sent.
    pub fn query_value(&self, name: &str) -> Option<&'a str> {
        let pairs = self.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Values of a header, one for each of its lines, in order.
    pub fn header_lines(&self, name: &http::HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes)
    }

    /// Returns true if the content type says that it is gRPC.
    pub fn is_grpc(&self) -> bool {
        crate::grpc::is_grpc(self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::request;

    #[test]
    fn the_first_raw_value_of_a_query_parameter_counts() {
        let headers = HeaderMap::new();
        for (query, expected) in [
            ("a=1", Some("1")),
            ("a=1&a=2", Some("1")),
            ("a=2&a=1", Some("2")),
            ("b=1&a=%31", Some("%31")),
            ("a", Some("")),
            ("a=", Some("")),
            ("%61=1", None),
            ("A=1", None),
            ("&a=1", Some("1")),
            ("c=a=1&d", None),
            ("b&a=1", Some("1")),
            ("a=1;b=2", Some("1;b=2")),
            ("a=+1", Some("+1")),
            ("a=?x", Some("?x")),
            ("", None),
        ] {
            let target = format!("/q?{query}");
            let request = Request { target: &target, ..request(&headers) };
            assert_eq!(request.query_value("a"), expected, "{query}");
            assert_eq!(request.path(), "/q");
        }
        assert_eq!(Request { target: "/q", ..request(&headers) }.query_value("a"), None);
    }
}
