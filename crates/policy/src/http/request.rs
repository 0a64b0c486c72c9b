//! Facts of a request that policies compare. It borrows everything: nothing is copied for a decision.

use std::net::{IpAddr, SocketAddr};

use ::http::HeaderMap;
use identity::Identity;
use serde_json::Value;

/// A request through a waypoint, or a TCP connection through it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Identity that the client's tunnel has proved; `None` for a client outside of the mesh.
    pub identity: Option<&'a Identity>,
    /// Address of the client's pod.
    pub source: IpAddr,
    /// Address that the request says it comes from, where proxies before this one are trusted; else `source`.
    pub remote: IpAddr,
    /// Address and port of the service that the client asked for.
    pub destination: SocketAddr,
    /// Server name of the client's own TLS; `None` if it speaks none that can be seen.
    pub sni: Option<&'a str>,
    /// `None` for a TCP connection.
    pub http: Option<Http<'a>>,
}

/// Facts of an HTTP request.
#[derive(Clone, Copy, Debug)]
pub struct Http<'a> {
    pub method: &'a str,
    /// The `Host` header or `:authority`, with the port if it has one.
    pub authority: &'a str,
    /// Normalised path without its query. A path that is not normalised evades policies.
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    pub authentication: Authentication<'a>,
}

/// State of the verification of a request's token.
#[derive(Clone, Copy, Debug)]
pub enum Authentication<'a> {
    /// It comes later: nothing is known. External authorizers are asked before it.
    Pending,
    /// The request has no token.
    NoToken,
    Token(Token<'a>),
}

/// A verified token.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// `iss/sub`; `None` for a token without one of both.
    pub principal: Option<&'a str>,
    pub audiences: &'a [String],
    /// Claim `azp`.
    pub presenter: Option<&'a str>,
    /// All claims, an object.
    pub claims: &'a Value,
}
