//! Endpoints that Envoy 1.40 chose for the same keys, recorded with five endpoints 127.0.0.1:10001 to :10005 that answered
//! with their numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balance::{Balancer, Endpoint, HashInput, Hashed, PickRequest, Place, hash};
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use route::traffic::{Algorithm, HashCookie, HashKey, HashTable, LoadBalancer, TrafficPolicy};

const EQUAL: [u32; 5] = [1; 5];
const DIFFERENT: [u32; 5] = [1, 1, 2, 3, 1];
const HEADER: HeaderName = HeaderName::from_static("x-key");

/// A waypoint with one service.
struct Proxy {
    balancer: Balancer<usize>,
    key: HashKey,
    now: Instant,
}

impl Proxy {
    fn new(key: HashKey, table: HashTable, weights: [u32; 5]) -> Self {
        let now = Instant::now();
        let endpoint = |(number, weight): (usize, u32)| {
            let id: Arc<str> = format!("127.0.0.1:{}", 10_001 + number).into();
            let (hash_key, place) = (Arc::clone(&id), Place::default());
            Endpoint { id, hash_key, weight, is_healthy: true, place, target: number }
        };
        let endpoints = weights.into_iter().enumerate().map(endpoint).collect();
        let algorithm = Algorithm::ConsistentHash { key: key.clone(), table };
        let load_balancer = LoadBalancer { algorithm, ..LoadBalancer::default() };
        let policy = TrafficPolicy { load_balancer, ..TrafficPolicy::default() };
        let balancer = Balancer::new(1, now);
        balancer.apply(Arc::new(policy), Place::default(), Vec::new(), endpoints, now);
        Self { balancer, key, now }
    }

    fn answer(&self, headers: &HeaderMap, query: Option<&str>) -> (usize, Hashed) {
        let hashed = hash(&self.key, HashInput { headers, query, source: None, connection: b"client and server" });
        let request = PickRequest { hash: hashed.hash, ..PickRequest::new(7, self.now) };
        (self.balancer.pick(&request).unwrap().endpoint().target, hashed)
    }

    /// Numbers of the endpoints for requests in order.
    fn answers(&self, requests: impl Iterator<Item = HeaderMap>) -> String {
        requests.map(|headers| self.answer(&headers, None).0.to_string()).collect()
    }
}

fn lines(name: &HeaderName, values: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn keys(count: usize) -> impl Iterator<Item = HeaderMap> {
    (0..count).map(|number| lines(&HEADER, &[format!("key-{number}")]))
}

const RING: HashTable = HashTable::Ring { minimum_size: 1024 };

#[test]
fn rings_and_tables_are_those_of_envoy() {
    for (table, weights, expected) in [
        (
            RING,
            EQUAL,
            "0204014014000313021144224120320444233031123400024324103320304302310423320330030241031213244420201321",
        ),
        (
            RING,
            DIFFERENT,
            "3201032314030313023134224320323244233033223300022324303323334332310323320330030243332223343420231321",
        ),
        (
            HashTable::Maglev { size: 65_537 },
            EQUAL,
            "2113201440244230011031441230132430322244222412123222241044110303132312132114041310122302343441211122",
        ),
        (
            HashTable::Maglev { size: 101 },
            DIFFERENT,
            "0211223440343040322433314342322321222332332230133323143023142132423330342222230040333133404332334130",
        ),
    ] {
        assert_eq!(Proxy::new(HashKey::Header(HEADER), table, weights).answers(keys(100)), expected, "{table:?}");
    }
}

#[test]
fn the_first_cookie_counts_and_a_new_one_has_the_form_of_envoys() {
    let ttl = Some(Duration::from_secs(3600));
    let cookie = HashCookie { name: "user".into(), path: "/app".into(), ttl, attributes: Vec::new() };
    let proxy = Proxy::new(HashKey::Cookie(cookie), RING, EQUAL);
    let requests = (0..20).map(|number| lines(&COOKIE, &[format!("a=b; user=key-{number}; user=x")]));
    assert_eq!(proxy.answers(requests), "02040140140003130211");

    // Envoy sent `user="34fd46821b30848a"; Max-Age=3600; Path=/app; HttpOnly` and answered with the endpoint of that value.
    let line = proxy.answer(&HeaderMap::new(), None).1.set_cookie.unwrap();
    let (name, rest) = line.split_at("user=\"".len());
    let (value, rest) = rest.split_at(16);
    assert_eq!((name, rest), ("user=\"", "\"; Max-Age=3600; Path=/app; HttpOnly"));
    assert!(value.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let envoys = lines(&COOKIE, &["user=\"34fd46821b30848a\"".to_owned()]);
    assert_eq!(proxy.answer(&envoys, None).0, 0);
}

#[test]
fn the_first_query_parameter_counts_as_it_is_written() {
    let proxy = Proxy::new(HashKey::QueryParameter("q".into()), RING, EQUAL);
    let answers = |query: &dyn Fn(usize) -> String| -> String {
        (0..20).map(|number| proxy.answer(&HeaderMap::new(), Some(&query(number))).0.to_string()).collect()
    };
    assert_eq!(answers(&|number| format!("a=b&q=key-{number}&q=z")), "02040140140003130211");
    assert_eq!(answers(&|number| format!("q=%6Bey-{number}")), "32233303303223242322");
}

#[test]
fn lines_of_a_header_count_in_any_order() {
    let proxy = Proxy::new(HashKey::Header(HEADER), RING, EQUAL);
    let both = |first: &str, second: &str| {
        proxy
            .answers((0..20).map(|number| lines(&HEADER, &[format!("{first}-{number}"), format!("{second}-{number}")])))
    };
    assert_eq!(both("b", "a"), "20011403244204204340");
    assert_eq!(both("a", "b"), "20011403244204204340");
}
