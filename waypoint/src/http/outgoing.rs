//! A request as its destination sees it, made anew for each try.

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use super::headers;
use super::reply::Reply;
use crate::http::body::RequestBody;
use crate::upstream::HttpVersion;

/// A request without its body.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub method: Method,
    pub authority: String,
    /// Path with query.
    pub target: String,
    /// Without those of one hop.
    pub headers: HeaderMap,
    /// The client wants WebSocket.
    pub is_upgrade: bool,
}

/// A request in the form of one version of HTTP.
#[derive(Clone, Debug)]
pub(super) struct Template {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    is_upgrade: bool,
}

impl Outgoing {
    /// Brings the request into the form of `version`.
    ///
    /// # Errors
    /// The answer to a request whose path or authority cannot be sent; a rewrite has made it so.
    pub(super) fn template(self, version: HttpVersion) -> Result<Template, Reply> {
        let Self { method, authority, target, mut headers, is_upgrade } = self;
        let invalid = || Reply::new(400, "", "invalid_rewrite");
        let uri = match version {
            HttpVersion::Http1 => {
                headers.insert(HOST, HeaderValue::try_from(authority).map_err(|_| invalid())?);
                Uri::try_from(target).map_err(|_| invalid())?
            }
            HttpVersion::Http2 => {
                headers.remove(HOST);
                let uri = Uri::builder().scheme("http").authority(authority).path_and_query(target);
                uri.build().map_err(|_| invalid())?
            }
        };
        if is_upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        let version = match version {
            HttpVersion::Http1 => Version::HTTP_11,
            HttpVersion::Http2 => Version::HTTP_2,
        };
        Ok(Template { method, uri, version, headers, is_upgrade })
    }
}

impl Template {
    /// Returns true if the client wants to leave HTTP.
    pub(super) const fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// The request of try `number`, counted from 1.
    pub(super) fn request(&self, number: u32, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(headers::ATTEMPT_COUNT, HeaderValue::from(number));
        request
    }
}
