//! Hash of a request, by the key that the policy names, and the cookie that makes a client's next requests equal to it.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::COOKIE;
use route::traffic::{HashCookie, HashKey};
use xxhash_rust::xxh64::xxh64;

/// Parts of a request that hashes are made of.
#[derive(Clone, Copy, Debug)]
pub struct HashInput<'a> {
    pub headers: &'a HeaderMap,
    /// Query without `?`; `None` if there is none.
    pub query: Option<&'a str>,
    /// Address of the client's pod.
    pub source: Option<IpAddr>,
    /// Bytes that stand for the client's connection, as both socket addresses. A new cookie follows from them, so that
    /// requests that it sends before it has the cookie go to the same endpoint.
    pub connection: &'a [u8],
}

/// Hash of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// `None`: the request has no such key, and goes to a random endpoint.
    pub hash: Option<u64>,
    /// Value of a `set-cookie` line for the answer.
    pub set_cookie: Option<String>,
}

/// Computes the hash of a request. xxHash64 with seed 0 of the value, as Envoy.
pub fn hash(key: &HashKey, input: HashInput<'_>) -> Hashed {
    let of = |bytes: &[u8]| Hashed { hash: Some(xxh64(bytes, 0)), set_cookie: None };
    match key {
        HashKey::Header(name) => {
            let mut lines: Vec<_> = input.headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
            // The order of lines does not count. The hash of one is the seed for the next.
            lines.sort_unstable();
            let hash = lines.into_iter().fold(None, |seed, line| Some(xxh64(line, seed.unwrap_or_default())));
            Hashed { hash, set_cookie: None }
        }
        HashKey::Cookie(cookie) => match value(input.headers, &cookie.name) {
            Some(value) => of(value),
            None => new_cookie(cookie, input.connection),
        },
        HashKey::SourceAddress => input.source.map(|address| of(address.to_string().as_bytes())).unwrap_or_default(),
        HashKey::QueryParameter(name) => {
            let query = input.query.unwrap_or_default();
            let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let value = pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value);
            value.map(|value| of(value.as_bytes())).unwrap_or_default()
        }
    }
}

/// Value of the first cookie of a name, without quotes. `None` for an empty one.
fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..at] == name.as_bytes()).then(|| &pair[at + 1..])
    });
    let value = values.next()?;
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value)).filter(|value| !value.is_empty())
}

fn new_cookie(cookie: &HashCookie, connection: &[u8]) -> Hashed {
    let Some(ttl) = cookie.ttl else { return Hashed::default() };
    let value = format!("{:016x}", xxh64(connection, 0));
    let mut line = format!("{}=\"{value}\"", cookie.name);
    if ttl.as_secs() > 0 {
        line.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        line.push_str("; Path=");
        line.push_str(&cookie.path);
    }
    for (name, value) in &cookie.attributes {
        line.push_str("; ");
        line.push_str(name);
        if !value.is_empty() {
            line.push('=');
            line.push_str(value);
        }
    }
    line.push_str("; HttpOnly");
    Hashed { hash: Some(xxh64(value.as_bytes(), 0)), set_cookie: Some(line) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn input(headers: &HeaderMap) -> HashInput<'_> {
        HashInput { headers, query: None, source: None, connection: b"10.0.0.1:4242 10.0.0.2:80" }
    }

    #[test]
    fn a_header_is_hashed_whatever_the_order_of_its_lines() {
        let key = HashKey::Header(HeaderName::from_static("x-user"));
        let of = |lines: &[(&'static str, &str)]| hash(&key, input(&headers(lines))).hash;
        assert_eq!(of(&[("x-user", "a")]), Some(xxh64(b"a", 0)));
        assert_eq!(of(&[("x-user", "a"), ("x-user", "b")]), Some(xxh64(b"b", xxh64(b"a", 0))));
        assert_eq!(of(&[("x-user", "b"), ("x-user", "a")]), of(&[("x-user", "a"), ("x-user", "b")]));
        assert_eq!(of(&[("x-other", "a")]), None);
    }

    #[test]
    fn xxhash64_is_the_published_one() {
        // Test vectors of the reference implementation.
        assert_eq!(xxh64(b"", 0), 0xEF46_DB37_51D8_E999);
        assert_eq!(xxh64(b"a", 0), 0xD24E_C4F1_A98C_6E5B);
    }

    #[test]
    fn the_first_cookie_of_the_name_is_hashed() {
        let key = HashKey::Cookie(HashCookie { name: "user".into(), ..HashCookie::default() });
        let of = |lines: &[(&'static str, &str)]| hash(&key, input(&headers(lines))).hash;
        let joe = Some(xxh64(b"joe", 0));
        assert_eq!(of(&[("cookie", "user=joe")]), joe);
        assert_eq!(of(&[("cookie", "a=b; user=joe; user=ann")]), joe);
        assert_eq!(of(&[("cookie", "a=b"), ("cookie", "user=\"joe\"")]), joe);
        assert_eq!(of(&[("cookie", "username=x; xuser=y; user")]), None);
        assert_eq!(of(&[("cookie", "user=")]), None);
    }

    #[test]
    fn a_client_without_the_cookie_gets_one_that_leads_to_the_same_endpoint() {
        let cookie = HashCookie {
            name: "user".into(),
            path: "/app".into(),
            ttl: Some(Duration::from_secs(3600)),
            attributes: vec![("SameSite".into(), "Lax".into()), ("Secure".into(), String::new())],
        };
        let (none, key) = (HeaderMap::new(), HashKey::Cookie(cookie.clone()));
        let first = hash(&key, input(&none));
        let line = first.set_cookie.clone().unwrap();
        let (pair, rest) = line.split_once("; ").unwrap();
        assert_eq!(rest, "Max-Age=3600; Path=/app; SameSite=Lax; Secure; HttpOnly");
        let next = hash(&key, input(&headers(&[("cookie", pair)])));
        assert_eq!(next, Hashed { hash: first.hash, set_cookie: None });
        assert_eq!(hash(&key, input(&none)), first, "the same connection, before it has the cookie");

        let session = HashCookie { path: String::new(), ttl: Some(Duration::ZERO), attributes: Vec::new(), ..cookie };
        let line = hash(&HashKey::Cookie(session.clone()), input(&none)).set_cookie.unwrap();
        assert!(line.starts_with("user=\"") && line.ends_with("\"; HttpOnly"), "{line}");
        let passive = HashCookie { ttl: None, ..session };
        assert_eq!(hash(&HashKey::Cookie(passive), input(&none)), Hashed::default());
    }

    #[test]
    fn addresses_and_the_first_query_parameter_are_hashed() {
        let none = HeaderMap::new();
        let source = HashInput { source: Some([10, 0, 0, 1].into()), ..input(&none) };
        assert_eq!(hash(&HashKey::SourceAddress, source).hash, Some(xxh64(b"10.0.0.1", 0)));
        assert_eq!(hash(&HashKey::SourceAddress, input(&none)).hash, None);
        let key = HashKey::QueryParameter("q".into());
        let of = |query| hash(&key, HashInput { query, ..input(&none) }).hash;
        assert_eq!(of(Some("a=b&q=%61&q=c")), Some(xxh64(b"%61", 0)));
        assert_eq!(of(Some("q")), Some(xxh64(b"", 0)));
        assert_eq!(of(Some("qq=1&Q=2")), None);
        assert_eq!(of(None), None);
    }
}
