//! Head of a request: what it has to be before anything is decided about it. One request has one meaning here and at its
//! destination, or it is refused.

use http::header::{CONNECTION, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use route::{LocalAnswer, normalise};

use super::reply::Reply;
use crate::report::Flag;

/// A request's head, read once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// `http` unless the client says otherwise.
    pub scheme: String,
    /// With the port, if there is one.
    pub authority: String,
    /// Normalised path with query.
    pub target: String,
    /// The client wants to leave HTTP for WebSocket.
    pub is_upgrade: bool,
}

impl Head {
    /// Reads the head of a request, whose hop-by-hop headers are still there.
    ///
    /// # Errors
    /// The answer to a request that cannot be routed.
    pub(super) fn read(parts: &Parts) -> Result<Self, Reply> {
        if parts.version < Version::HTTP_11 {
            let reply = Reply::new(426, "Upgrade Required", "low_version");
            return Err(reply.flag(Flag::DownstreamProtocol).closing());
        }
        let authority = authority(parts)?;
        // Istio's waypoints have no route for it: nothing may be opened through one but what its routes name.
        if parts.method == Method::CONNECT {
            return Err(Reply::no_route().closing());
        }
        let sent = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        if !sent.starts_with('/') {
            return Err(Reply::new(404, "", "absolute_path_rejected"));
        }
        let target = normalise(sent).map_err(|_| bad_request("path_normalization_failed"))?.into_owned();
        let scheme = parts.uri.scheme_str().unwrap_or("http").to_owned();
        Ok(Self { scheme, authority, target, is_upgrade: is_upgrade(parts)? })
    }
}

fn bad_request(details: &'static str) -> Reply {
    Reply { answer: LocalAnswer::new(400, ""), ..Reply::new(400, "", details).closing() }
}

/// The authority of the request line before that of `host` (RFC 9112, section 3.2.2).
fn authority(parts: &Parts) -> Result<String, Reply> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    // RFC 9112, section 3.2. Envoy forwards both, joined by a comma.
    if hosts.next().is_some() {
        return Err(bad_request("multiple_host_headers"));
    }
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.as_str().to_owned());
    }
    let text = host.and_then(|host| host.to_str().ok()).map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| bad_request("missing_host_header"))?;
    // The same form as in a request line, so that both sides read the same host.
    match text.parse::<http::uri::Authority>() {
        // A comma would be that of two lines which somebody has joined.
        Ok(parsed) if !text.contains(['@', ',']) => Ok(parsed.as_str().to_owned()),
        Ok(_) | Err(_) => Err(bad_request("invalid_host_header")),
    }
}

/// Reads the wish to leave HTTP. `h2c` is only an offer, and is not taken.
fn is_upgrade(parts: &Parts) -> Result<bool, Reply> {
    if parts.version != Version::HTTP_11 || !names(&parts.headers, "upgrade") {
        return Ok(false);
    }
    let Some(protocol) = parts.headers.get(UPGRADE) else { return Ok(false) };
    let is = |name: &str| protocol.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    match (is("websocket"), is("h2c")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        (false, false) => Err(Reply::new(403, "", "upgrade_failed").closing()),
    }
}

/// Returns true if `connection` names this option.
pub(super) fn names(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn read(request: http::request::Builder) -> Result<Head, (u16, String)> {
        let parts = request.body(()).unwrap().into_parts().0;
        Head::read(&parts).map_err(|reply| (reply.answer.status, reply.details.into_owned()))
    }

    fn refused(status: u16, details: &str) -> Result<Head, (u16, String)> {
        Err((status, details.to_owned()))
    }

    #[test]
    fn the_authority_is_that_of_the_request_line_or_of_host() {
        let head = read(Request::get("/a/../b?q=1").header("host", "echo:80")).unwrap();
        assert_eq!(
            (head.authority.as_str(), head.target.as_str(), head.scheme.as_str()),
            ("echo:80", "/b?q=1", "http")
        );
        let head = read(Request::get("http://other/x").header("host", "echo")).unwrap();
        assert_eq!((head.authority.as_str(), head.target.as_str()), ("other", "/x"));
    }

    #[test]
    fn a_request_with_two_meanings_is_refused() {
        assert_eq!(read(Request::get("/")), refused(400, "missing_host_header"));
        assert_eq!(read(Request::get("/").header("host", "")), refused(400, "missing_host_header"));
        let two = Request::get("/").header("host", "a").header("host", "b");
        assert_eq!(read(two), refused(400, "multiple_host_headers"));
        for host in ["a b", "a/b", "user@a", "a,b"] {
            assert_eq!(read(Request::get("/").header("host", host)), refused(400, "invalid_host_header"), "{host}");
        }
        assert_eq!(read(Request::get("/%00").header("host", "a")), refused(400, "path_normalization_failed"));
        let old = Request::get("/").version(Version::HTTP_10).header("host", "a");
        assert_eq!(read(old), refused(426, "low_version"));
        assert_eq!(read(Request::options("*").header("host", "a")), refused(404, "absolute_path_rejected"));
        assert_eq!(read(Request::connect("a:80").header("host", "a")), refused(404, "route_not_found"));
    }

    #[test]
    fn only_websocket_leaves_http() {
        let upgrade = |to: &str| {
            Request::get("/").header("host", "a").header("connection", "keep-alive, Upgrade").header("upgrade", to)
        };
        assert!(read(upgrade("WebSocket")).unwrap().is_upgrade);
        assert!(!read(upgrade("h2c")).unwrap().is_upgrade);
        assert_eq!(read(upgrade("foo")), refused(403, "upgrade_failed"));
        // Without the option it is a header as any other.
        assert!(!read(Request::get("/").header("host", "a").header("upgrade", "foo")).unwrap().is_upgrade);
    }
}
