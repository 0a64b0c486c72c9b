//! Secrets against an API server in memory, which can be away, forget, and be written to by others.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::*;
use crate::testing::api_server;

const NAMESPACE: &str = "istio-system";

#[derive(Default)]
struct State {
    is_away: bool,
    /// A proxy in between answers.
    is_proxied: bool,
    secrets: HashMap<String, Value>,
}

/// Clones share their objects.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.0.lock();
        if state.is_away {
            return (StatusCode::SERVICE_UNAVAILABLE, json!({"code": 503, "reason": "ServiceUnavailable"}));
        }
        if state.is_proxied {
            return (StatusCode::NOT_FOUND, json!("404 page not found"));
        }
        if method == Method::POST {
            let mut object: Value = serde_json::from_slice(body).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            if state.secrets.contains_key(&name) {
                return (StatusCode::CONFLICT, json!({"code": 409, "reason": "AlreadyExists"}));
            }
            // As the API server does it.
            let texts = object["stringData"].take();
            for (key, text) in texts.as_object().unwrap() {
                object["data"][key] = STANDARD.encode(text.as_str().unwrap()).into();
            }
            state.secrets.insert(name, object.clone());
            return (StatusCode::CREATED, object);
        }
        let name = path.rsplit('/').next().unwrap();
        match state.secrets.get(name) {
            Some(secret) => (StatusCode::OK, secret.clone()),
            None => (StatusCode::NOT_FOUND, json!({"code": 404, "reason": "NotFound"})),
        }
    }

    fn secrets(&self) -> Secrets {
        let fake = self.clone();
        let server = api_server(move |method, path, body| fake.answer(method, path, body));
        let day = Duration::from_secs(24 * 3600);
        Secrets::new(Objects::new(&server), NAMESPACE.to_owned(), TrustDomain::default(), day)
    }

    fn put(&self, name: &str, texts: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> =
            texts.iter().map(|(key, text)| ((*key).to_owned(), STANDARD.encode(text).into())).collect();
        self.0.lock().secrets.insert(name.to_owned(), json!({"data": data}));
    }

    fn put_root(&self, name: &str) -> Material {
        let material = Material::generate(&TrustDomain::default()).unwrap();
        self.put(name, &[(CERTIFICATE, &material.certificate), (KEY, &material.key)]);
        material
    }
}

/// Roots of what is in use after everything that was due has happened.
async fn roots_after_a_look(issuer: &ca_server::CurrentIssuer) -> String {
    sleep(LOOK + Duration::from_secs(1)).await;
    issuer.get().roots_pem().to_owned()
}

#[tokio::test(start_paused = true)]
async fn replicas_that_start_together_have_one_root() {
    let fake = Fake::default();
    let (one, other) = (fake.secrets(), fake.secrets());

    let (one, other) = tokio::join!(one.wait(), other.wait());

    let roots = |slot: &IssuerSlot| slot.reader().get().roots_pem().to_owned();
    assert_eq!(roots(&one.unwrap().0), roots(&other.unwrap().0));
    assert_eq!(fake.0.lock().secrets.keys().collect::<Vec<_>>(), [OWN]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_waited_for_and_makes_no_new_root() {
    let fake = Fake::default();
    let known = fake.put_root(OWN);
    fake.0.lock().is_away = true;
    let secrets = fake.secrets();
    let waiting = tokio::spawn(async move { secrets.wait().await.map(|(slot, _)| slot) });
    sleep(Duration::from_secs(600)).await;
    assert!(!waiting.is_finished());

    fake.0.lock().is_away = false;

    let slot = waiting.await.unwrap().unwrap();
    assert_eq!(slot.reader().get().roots_pem(), known.roots);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_of_the_api_is_no_absence() {
    let fake = Fake::default();
    fake.put_root(PLUGGED_IN);
    fake.0.lock().is_proxied = true;

    // Taken for an absence it would lead to a new root: to the attempt to create one, which fails here with another text.
    let error = fake.secrets().wait().await.unwrap_err().to_string();

    assert!(error.starts_with("failed to get secrets istio-system/cacerts: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_users_authority_wins_and_its_changes_are_followed() {
    let fake = Fake::default();
    fake.put_root(OWN);
    let first = fake.put_root(PLUGGED_IN);
    let secrets = fake.secrets();
    let (slot, found) = secrets.wait().await.unwrap();
    let issuer = slot.reader();
    tokio::spawn(secrets.follow(slot, found));
    assert_eq!(roots_after_a_look(&issuer).await, first.roots);

    let second = fake.put_root(PLUGGED_IN);

    assert_eq!(roots_after_a_look(&issuer).await, second.roots);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_usable_secret_replaces_the_authority() {
    let fake = Fake::default();
    let good = fake.put_root(PLUGGED_IN);
    let secrets = fake.secrets();
    let (slot, found) = secrets.wait().await.unwrap();
    let issuer = slot.reader();
    tokio::spawn(secrets.follow(slot, found));
    let other = Material::generate(&TrustDomain::default()).unwrap();

    for texts in [
        // Half of a change, a key of another pair, roots that the certificate does not lead to, nothing.
        vec![(CERTIFICATE, other.certificate.as_str())],
        vec![(CERTIFICATE, good.certificate.as_str()), (KEY, other.key.as_str())],
        vec![(CERTIFICATE, other.certificate.as_str()), (KEY, other.key.as_str()), (ROOTS, good.roots.as_str())],
        vec![],
    ] {
        fake.put(PLUGGED_IN, &texts);
        assert_eq!(roots_after_a_look(&issuer).await, good.roots, "{texts:?}");
    }
    fake.0.lock().is_away = true;
    assert_eq!(roots_after_a_look(&issuer).await, good.roots, "away");
    *fake.0.lock() = State::default();
    assert_eq!(roots_after_a_look(&issuer).await, good.roots, "gone");
    fake.put(PLUGGED_IN, &[(CERTIFICATE, &other.certificate), (KEY, &other.key)]);
    assert_eq!(roots_after_a_look(&issuer).await, other.roots);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_used_is_an_error_at_the_start_and_is_not_replaced() {
    let fake = Fake::default();
    fake.put(PLUGGED_IN, &[(CERTIFICATE, "C")]);

    let error = fake.secrets().wait().await.unwrap_err().to_string();

    assert_eq!(error, "secret cacerts: expected PEM in the key ca-key.pem, found nothing");
    assert_eq!(fake.0.lock().secrets.len(), 1);
}

fn encoded(text: &str) -> Value {
    STANDARD.encode(text).into()
}

#[test]
fn a_secret_has_a_certificate_and_a_key_and_perhaps_chain_and_roots() {
    let data = json!({CERTIFICATE: encoded("C"), KEY: encoded("K")});
    let root = material(PLUGGED_IN, &data).unwrap();
    assert_eq!((root.roots.as_str(), root.chain.as_str()), ("C", ""));

    let data = json!({CERTIFICATE: encoded("C"), KEY: encoded("K"), CHAIN: encoded("CH"), ROOTS: encoded("R")});
    let below = material(PLUGGED_IN, &data).unwrap();
    assert_eq!((below.roots.as_str(), below.chain.as_str()), ("R", "CH"));
}

#[test]
fn keys_that_are_missing_or_unreadable_are_named() {
    for (data, text) in [
        (json!({KEY: encoded("K")}), "secret cacerts: expected PEM in the key ca-cert.pem, found nothing"),
        (json!({CERTIFICATE: encoded("C")}), "secret cacerts: expected PEM in the key ca-key.pem, found nothing"),
        (json!({CERTIFICATE: "*"}), "secret cacerts: expected PEM in the key ca-cert.pem, found no base64"),
        (Value::Null, "secret cacerts: expected PEM in the key ca-cert.pem, found nothing"),
    ] {
        assert_eq!(material(PLUGGED_IN, &data).unwrap_err().to_string(), text);
    }
}
