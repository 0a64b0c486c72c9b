//! Headers that a proxy removes, adds and replaces, as Envoy does in Istio's waypoints.

use http::header::{CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, SERVER, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

/// Number of the try, counted from 1.
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// Milliseconds that the destination has for its answer.
pub(super) const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// Path before a rewrite.
pub(super) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// Authority before a rewrite.
pub(super) const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// Milliseconds until the destination's answer began.
pub(super) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// Identifies the request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Certificate of the client: only a proxy may say who it is.
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Value of `server`, Istio's.
const OWN_SERVER: HeaderValue = HeaderValue::from_static("istio-envoy");

/// Headers that a client cannot remove by naming them in `connection`: servers and proxies decide by them.
const PROTECTED: [HeaderName; 4] = [FORWARDED_FOR, FORWARDED_PROTO, REQUEST_ID, HOST];

/// Removes headers that are for the next hop only (RFC 9110, section 7.6.1), among them those that `connection` names.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::try_from(name.trim()).ok())
            .filter(|name| !PROTECTED.contains(name) && *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    // `trailers` is for the whole way: gRPC servers ask for it.
    if headers.contains_key(TE) {
        let lines = headers.get_all(TE).iter();
        let has_trailers = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).any(|coding| {
            let name = coding.split(';').next().unwrap_or_default();
            name.trim().eq_ignore_ascii_case("trailers")
        });
        headers.remove(TE);
        if has_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Prepares a client's headers for routing and for its destination. `scheme` is the one that the client used.
pub(super) fn prepare_request(headers: &mut HeaderMap, scheme: &str) {
    remove_hop_by_hop(headers);
    // This proxy has answered it, or will.
    headers.remove(EXPECT);
    headers.remove(CLIENT_CERT);
    if !headers.contains_key(FORWARDED_PROTO)
        && let Ok(scheme) = HeaderValue::from_str(scheme)
    {
        headers.insert(FORWARDED_PROTO, scheme);
    }
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(request_id(&mut rand::rng()))
    {
        headers.insert(REQUEST_ID, id);
    }
}

/// Prepares a destination's headers for the client.
pub(super) fn prepare_response(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    // Of a proxy in between, for us.
    headers.remove(PROXY_AUTHENTICATE);
}

/// Adds what every answer has.
pub(super) fn finish_response(headers: &mut HeaderMap) {
    headers.insert(SERVER, OWN_SERVER);
}

/// A random UUID of version 4.
fn request_id(rng: &mut impl Rng) -> String {
    let (high, low) = (rng.next_u64(), rng.next_u64());
    let (version, variant) = (high & 0x0fff | 0x4000, low >> 48 & 0x3fff | 0x8000);
    format!(
        "{:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn headers_of_one_hop_go_no_further() {
        let mut headers = map(&[
            ("connection", "keep-alive, x-mine"),
            ("connection", "X-Other, x-forwarded-for"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("te", "gzip, trailers;q=0.5"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-end", "1"),
        ]);

        remove_hop_by_hop(&mut headers);

        assert_eq!(headers, map(&[("te", "trailers"), ("x-forwarded-for", "192.0.2.7"), ("x-end", "1")]));
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let mut headers = map(&[("x-forwarded-client-cert", "URI=spiffe://a/ns/b/sa/c"), ("expect", "100-continue")]);

        prepare_request(&mut headers, "http");

        assert_eq!(headers.get("x-forwarded-client-cert"), None);
        assert_eq!(headers.get("expect"), None);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-request-id"].len(), 36);
    }

    #[test]
    fn an_id_of_the_client_stays_and_others_are_uuids() {
        let mut headers = map(&[("x-request-id", "mine"), ("x-forwarded-proto", "https")]);
        prepare_request(&mut headers, "http");
        assert_eq!(headers["x-request-id"], "mine");
        assert_eq!(headers["x-forwarded-proto"], "https");

        let id = request_id(&mut rand::rng());
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
    }
}
