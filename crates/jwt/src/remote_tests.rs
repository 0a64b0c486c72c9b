//! The clock of these tests stands still, and moves only while every task waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::testing::{ISSUER, claims, get, headers, jwks, now, rule, signer, token, with};
use crate::{Authenticator, JwtRule, Outcome};

const URI: &str = "https://id.example/keys";
const SECOND: Duration = Duration::from_secs(1);

/// Answers by URI, and how often it was asked.
#[derive(Default)]
struct Web {
    documents: Mutex<HashMap<String, Result<String, &'static str>>>,
    /// Time until an answer.
    delay: Mutex<Duration>,
    fetches: AtomicUsize,
}

impl Web {
    fn put(&self, uri: &str, document: Result<String, &'static str>) {
        self.documents.lock().insert(uri.to_owned(), document);
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

impl Fetcher for Web {
    fn fetch<'a>(&'a self, uri: &'a str, _limit: usize) -> Fetching<'a> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let delay = *self.delay.lock();
        Box::pin(async move {
            sleep(delay).await;
            let document = self.documents.lock().get(uri).cloned().unwrap_or(Err("not found"));
            document.map(String::into_bytes).map_err(|text| FetchError(text.to_owned()))
        })
    }
}

fn keys(algorithms: &[&str]) -> Result<String, &'static str> {
    let named = algorithms.iter().map(|name| with(signer(name).jwk(), json!({"kid": name})));
    Ok(jwks(&named.collect::<Vec<_>>()))
}

fn source() -> KeySource {
    KeySource::Uri { uri: URI.to_owned(), timeout: 5 * SECOND }
}

fn store(web: &Arc<Web>) -> KeyStore {
    KeyStore::new(web.clone(), Handle::current())
}

fn authenticator(store: &KeyStore, keys: KeySource) -> Authenticator {
    Authenticator::new(vec![JwtRule { keys, ..rule() }], store)
}

fn signed(kid: &str) -> HeaderMap {
    let header = json!({"alg": kid, "kid": kid}).to_string();
    let token = signer(kid).token(kid, &header, &claims(json!({})).to_string());
    headers(&[("authorization", &format!("Bearer {token}"))])
}

async fn accepts(authenticator: &Authenticator, headers: &HeaderMap) -> bool {
    let outcome = authenticator.authenticate(&get("/", headers), now()).await;
    matches!(outcome, Outcome::Authenticated { .. })
}

#[tokio::test(start_paused = true)]
async fn many_requests_wait_for_one_fetch() {
    let web = Arc::new(Web::default());
    web.put(URI, keys(&["ES256"]));
    *web.delay.lock() = 2 * SECOND;
    let store = store(&web);
    let authenticator = authenticator(&store, source());
    let headers = signed("ES256");

    let requests: Vec<_> = (0..100).map(|_| accepts(&authenticator, &headers)).collect();
    let accepted = futures_join(requests).await;

    assert!(accepted.into_iter().all(|accepted| accepted));
    assert_eq!(web.fetches(), 1);
    assert!(accepts(&authenticator, &headers).await);
    assert_eq!(web.fetches(), 1);
}

/// Runs all of them at once.
async fn futures_join(futures: Vec<impl Future<Output = bool>>) -> Vec<bool> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results = vec![None; pinned.len()];
    std::future::poll_fn(|context| {
        for (future, result) in pinned.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *result = Some(ready);
            }
        }
        if results.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_longer_than_it_may() {
    let web = Arc::new(Web::default());
    *web.delay.lock() = 60 * SECOND;
    let store = store(&web);
    let slow = KeySource::Uri { uri: URI.to_owned(), timeout: 120 * SECOND };
    let authenticator = authenticator(&store, slow);
    let start = Instant::now();

    assert!(!accepts(&authenticator, &signed("ES256")).await);
    assert_eq!(start.elapsed(), REFETCH_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_fetched_when_a_token_names_it() {
    let web = Arc::new(Web::default());
    web.put(URI, keys(&["ES256"]));
    let store = store(&web);
    let authenticator = authenticator(&store, source());
    assert!(accepts(&authenticator, &signed("ES256")).await);
    sleep(MIN_REFETCH + SECOND).await;

    web.put(URI, keys(&["EdDSA"]));

    assert!(accepts(&authenticator, &signed("EdDSA")).await);
    assert_eq!(web.fetches(), 2);
    assert!(!accepts(&authenticator, &signed("ES256")).await, "a key that is gone is not used");
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_fetch_no_more_often_than_they_may() {
    let web = Arc::new(Web::default());
    web.put(URI, keys(&["ES256"]));
    let store = store(&web);
    let authenticator = authenticator(&store, source());
    assert!(accepts(&authenticator, &signed("ES256")).await);
    let start = Instant::now();

    for _ in 0..1000 {
        assert!(!accepts(&authenticator, &signed("EdDSA")).await);
    }

    assert_eq!((web.fetches(), start.elapsed()), (1, Duration::ZERO), "the answer does not wait either");
    sleep(MIN_REFETCH + SECOND).await;
    for _ in 0..1000 {
        assert!(!accepts(&authenticator, &signed("EdDSA")).await);
    }
    assert_eq!(web.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_last_good_keys_for_a_week() {
    let web = Arc::new(Web::default());
    web.put(URI, keys(&["ES256"]));
    let store = store(&web);
    let authenticator = authenticator(&store, source());
    assert!(accepts(&authenticator, &signed("ES256")).await);

    for broken in [Err("connection refused"), Ok("<html>".to_owned()), Ok(r#"{"keys":[]}"#.to_owned())] {
        web.put(URI, broken);
        sleep(48 * 3600 * SECOND).await;
        assert!(accepts(&authenticator, &signed("ES256")).await);
    }
    sleep(48 * 3600 * SECOND).await;
    assert!(!accepts(&authenticator, &signed("ES256")).await);

    web.put(URI, keys(&["ES256"]));
    sleep(REFRESH + SECOND).await;
    assert!(accepts(&authenticator, &signed("ES256")).await);
}

#[tokio::test(start_paused = true)]
async fn intervals_are_those_of_istiod() {
    let web = Arc::new(Web::default());
    web.put(URI, Err("down"));
    let store = store(&web);
    let _keys = store.keys(&source());
    let mut minutes = Vec::new();
    let mut seen = 0;
    let start = Instant::now();
    for _ in 0..4000 {
        sleep(SECOND).await;
        if web.fetches() > seen {
            seen = web.fetches();
            minutes.push(start.elapsed().as_secs() / 60);
        }
    }
    assert_eq!(minutes, [0, 1, 3, 7, 15, 31, 51]);
}

#[tokio::test(start_paused = true)]
async fn the_discovery_document_names_the_keys() {
    let web = Arc::new(Web::default());
    let document = "https://id.example/.well-known/openid-configuration";
    web.put(URI, keys(&["ES256"]));
    for (issuer, expected) in [(ISSUER, true), ("https://thief.example", false)] {
        web.put(document, Ok(json!({"issuer": issuer, "jwks_uri": URI}).to_string()));
        let discovery = KeySource::Discovery { issuer: ISSUER.to_owned(), timeout: 5 * SECOND };
        let store = store(&web);
        assert_eq!(accepts(&authenticator(&store, discovery), &signed("ES256")).await, expected, "{issuer}");
    }
    let error = jwks_uri(b"{}", document, "").unwrap_err().to_string();
    assert_eq!(error, format!("{document} has no text jwks_uri"));
}

#[tokio::test(start_paused = true)]
async fn rules_share_the_keys_of_a_source_and_the_last_one_ends_the_fetches() {
    let web = Arc::new(Web::default());
    web.put(URI, keys(&["ES256"]));
    let store = store(&web);
    let (one, two) = (authenticator(&store, source()), authenticator(&store, source()));
    let other = KeySource::Uri { uri: format!("{URI}/2"), timeout: 5 * SECOND };
    assert!(accepts(&one, &signed("ES256")).await && accepts(&two, &signed("ES256")).await);
    assert_eq!(web.fetches(), 1);

    drop(one);
    sleep(REFRESH + SECOND).await;
    assert_eq!(web.fetches(), 2);
    drop(two);
    sleep(10 * REFRESH).await;
    assert_eq!(web.fetches(), 2);

    store.keys(&other);
    assert_eq!(store.sources.lock().len(), 1, "sources that nobody uses are forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_token_does_not_wait_for_keys() {
    let web = Arc::new(Web::default());
    *web.delay.lock() = 60 * SECOND;
    let store = store(&web);
    let authenticator = authenticator(&store, source());
    let start = Instant::now();

    let outcome = authenticator.authenticate(&get("/", &HeaderMap::new()), now()).await;

    assert!(matches!(outcome, Outcome::Anonymous { .. }));
    let expired = token("ES256", &claims(json!({"exp": 1})));
    assert!(!accepts(&authenticator, &headers(&[("authorization", &format!("Bearer {expired}"))])).await);
    assert_eq!(start.elapsed(), Duration::ZERO);
}
