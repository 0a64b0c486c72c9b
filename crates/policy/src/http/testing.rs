//! Requests and policies for tests of this module.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use model::StringMatch;
use serde_json::{Value, json};

use super::{Authentication, Http, HttpPolicy, Request, Token};

/// Everything that a request borrows from.
pub(super) struct Client {
    pub(super) identity: Option<identity::Identity>,
    pub(super) headers: HeaderMap,
    pub(super) method: &'static str,
    pub(super) authority: &'static str,
    pub(super) path: &'static str,
    pub(super) claims: Option<Value>,
    pub(super) audiences: Vec<String>,
    pub(super) is_pending: bool,
}

impl Default for Client {
    /// `GET /` of `web` in namespace `shop`, without a token.
    fn default() -> Self {
        Self {
            identity: Some("spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()),
            headers: HeaderMap::new(),
            method: "GET",
            authority: "reviews",
            path: "/",
            claims: None,
            audiences: Vec::new(),
            is_pending: false,
        }
    }
}

impl Client {
    pub(super) fn to(path: &'static str) -> Self {
        Self { path, ..Self::default() }
    }

    /// A token of `me` at issuer `https://id`, with further claims.
    pub(super) fn with_claims(claims: Value) -> Self {
        let audiences = vec!["shop".to_owned(), "bank".to_owned()];
        Self { claims: Some(claims), audiences, ..Self::default() }
    }

    pub(super) fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        self
    }

    pub(super) fn tcp(&self) -> Request<'_> {
        Request {
            identity: self.identity.as_ref(),
            source: "10.0.0.2".parse().unwrap(),
            remote: "192.0.2.7".parse().unwrap(),
            destination: "10.96.0.1:80".parse().unwrap(),
            sni: None,
            http: None,
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        let token = |claims| Token {
            principal: Some("https://id/me"),
            audiences: &self.audiences,
            presenter: Some("app"),
            claims,
        };
        let authentication = match (&self.claims, self.is_pending) {
            (_, true) => Authentication::Pending,
            (None, false) => Authentication::NoToken,
            (Some(claims), false) => Authentication::Token(token(claims)),
        };
        let Self { method, authority, path, .. } = *self;
        Request { http: Some(Http { method, authority, path, headers: &self.headers, authentication }), ..self.tcp() }
    }
}

/// A policy in namespace `shop`, from the JSON of its action and rules.
pub(super) fn policy(name: &str, action: &Value, rules: Value) -> HttpPolicy {
    let policy = json!({"namespace": "shop", "name": name, "action": action, "rules": rules});
    // Not from the value itself: serde_json reads no empty tuple (`Presence`) from one.
    serde_json::from_str(&policy.to_string()).unwrap()
}

pub(super) fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}
