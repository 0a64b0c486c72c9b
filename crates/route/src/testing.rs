//! Requests for tests of this crate.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Request, Source};

/// `GET /` of nobody in particular.
pub(crate) fn request(headers: &HeaderMap) -> Request<'_> {
    Request {
        method: "GET",
        scheme: "http",
        authority: "reviews",
        target: "/",
        headers,
        source: Source::default(),
        claims: None,
    }
}

/// Header lines in order.
pub(crate) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}
