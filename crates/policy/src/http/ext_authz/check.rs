//! Questions to an external authorizer about a request.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use prost::Message as _;

use super::message::{self, Address, AttributeContext, CheckRequest, HttpRequest, Peer, SocketAddress, Timestamp};
use crate::http::evaluate::matches_any_case;
use crate::http::{BodyCheck, HttpProtocol, Request};

/// Says whether a provider has all of a body.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// A request about which a provider is asked.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// As policies see it. It has to be one of HTTP.
    pub request: &'a Request<'a>,
    /// Port of the client.
    pub source_port: u16,
    /// Normalised path with query.
    pub target: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// SPIFFE id of the waypoint.
    pub own_identity: &'a str,
    pub time: SystemTime,
    /// Beginning of the body; `None` for a provider that does not get it.
    pub body: Option<Body<'a>>,
}

/// Beginning of a body, at most as long as [`BodyCheck::max_bytes`] says.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    pub bytes: &'a [u8],
    /// True if there is more.
    pub is_partial: bool,
}

/// Reason for which a provider cannot be asked about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("a TCP connection has no request that a provider could be asked about")]
    NotHttp,
    #[error("the method, the path or a header of the question is invalid")]
    Invalid,
}

/// Builds the request to an HTTP provider: method, path and some headers of the one that is checked.
pub fn http_check(protocol: &HttpProtocol, checked: &Checked<'_>) -> Result<::http::Request<Vec<u8>>, CheckError> {
    let http = checked.request.http.ok_or(CheckError::NotHttp)?;
    let invalid = |_| CheckError::Invalid;
    let mut question = ::http::Request::new(checked.body.map(|body| body.bytes.to_vec()).unwrap_or_default());
    *question.method_mut() = http.method.parse::<Method>().map_err(|_| CheckError::Invalid)?;
    let path = format!("{}{}", protocol.path_prefix, checked.target);
    *question.uri_mut() = path.parse::<Uri>().map_err(|_| CheckError::Invalid)?;
    let is_asked = |name: &HeaderName| {
        *name == AUTHORIZATION || protocol.request_headers.iter().any(|wanted| matches_any_case(wanted, name.as_str()))
    };
    let length = question.body().len();
    let headers = question.headers_mut();
    for (name, value) in http.headers.iter().filter(|(name, _)| is_asked(name) && !is_framing(name)) {
        headers.append(name, value.clone());
    }
    headers.insert(HOST, HeaderValue::from_str(http.authority).map_err(|_| CheckError::Invalid)?);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in &protocol.added_headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| CheckError::Invalid)?;
        headers.insert(name, HeaderValue::from_str(value).map_err(invalid)?);
    }
    insert_partial(headers, checked.body);
    Ok(question)
}

/// Builds the message to a gRPC provider, a `CheckRequest` without frame. It has all headers.
pub fn grpc_check(body_check: Option<BodyCheck>, checked: &Checked<'_>) -> Result<Vec<u8>, CheckError> {
    let request = checked.request;
    let http = request.http.ok_or(CheckError::NotHttp)?;
    let mut lines = http.headers.clone();
    insert_partial(&mut lines, checked.body);
    let mut headers = joined(&lines);
    for (name, value) in [
        (":method", http.method),
        (":path", checked.target),
        (":authority", http.authority),
        (":scheme", checked.scheme),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let bytes = checked.body.map_or(&[][..], |body| body.bytes);
    let packs_bytes = body_check.is_some_and(|check| check.pack_as_bytes);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (body, raw_body) = if packs_bytes { (String::new(), bytes.to_vec()) } else { (text, Vec::new()) };
    let peer = |ip: std::net::IpAddr, port: u16, principal: &str| Peer {
        address: Some(Address {
            socket_address: Some(SocketAddress { address: ip.to_string(), port_value: port.into() }),
        }),
        principal: principal.to_owned(),
    };
    let since = checked.time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let time = Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        // Below 10^9.
        nanos: since.subsec_nanos().try_into().unwrap_or_default(),
    };
    let length = http.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let http = HttpRequest {
        id: headers.get("x-request-id").cloned().unwrap_or_default(),
        method: http.method.to_owned(),
        path: checked.target.to_owned(),
        host: http.authority.to_owned(),
        scheme: checked.scheme.to_owned(),
        size: length.unwrap_or(-1),
        protocol: checked.protocol.to_owned(),
        headers,
        body,
        raw_body,
    };
    let identity = request.identity.map_or("", |identity| identity.as_str());
    let attributes = AttributeContext {
        source: Some(peer(request.source, checked.source_port, identity)),
        destination: Some(peer(request.destination.ip(), request.destination.port(), checked.own_identity)),
        request: Some(message::Request { time: Some(time), http: Some(http) }),
    };
    Ok(CheckRequest { attributes: Some(attributes) }.encode_to_vec())
}

fn insert_partial(headers: &mut HeaderMap, body: Option<Body<'_>>) {
    // A client must not say it.
    headers.remove(PARTIAL_BODY);
    if let Some(body) = body {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if body.is_partial { "true" } else { "false" }));
    }
}

/// Headers that belong to one connection, or to one body.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str())
}

/// Lines of each name joined by commas (RFC 9110 section 5.3). Bytes that are not UTF-8 are replaced.
fn joined(headers: &HeaderMap) -> HashMap<String, String> {
    let lines = |name: &HeaderName| {
        let lines = headers.get_all(name).into_iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
        lines.collect::<Vec<_>>().join(",")
    };
    headers.keys().map(|name| (name.as_str().to_owned(), lines(name))).collect()
}
