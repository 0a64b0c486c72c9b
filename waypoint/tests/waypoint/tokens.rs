//! Tokens of requests: who sent them, what is refused, and what routes and policies know of them.

use crate::common::client::{Client, request};
use crate::common::server::Server;
use crate::common::{HOST, Lab, default_route, forward, test, to};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method};
use jwt::JwtRule;
use model::NamespacedHostname;
use serde_json::{Value, json};
use std::sync::Arc;

/// An issuer with one key.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwks(&self) -> String {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "one", "x": x, "y": y}]}).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "one"})), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn claims(group: &str) -> Value {
    json!({"iss": "https://issuer.example", "sub": "alice", "exp": 4_102_444_800_u64, "group": group})
}

impl Lab {
    fn require_tokens_of(&self, issuer: &Issuer) {
        let rule: JwtRule = serde_json::from_value(json!({
            "origin": "shop/tokens jwtRules[0]", "issuer": "https://issuer.example",
            "keys": {"inline": {"jwks": issuer.jwks()}},
        }))
        .unwrap();
        self.change(|all| {
            let name = NamespacedHostname::new("shop", HOST);
            let mut service = (*all.services[&name]).clone();
            service.policies.jwt = vec![rule.clone()];
            all.services.insert(name, Arc::new(service));
        });
    }
}

async fn get(client: &Client, token: &str) -> crate::common::client::Answer {
    let mut request = request(Method::GET, "/a?q=1");
    request.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    client.send(request).await
}

#[test]
fn a_bad_token_is_refused_with_envoys_words_and_none_passes() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let issuer = Issuer::new();
        lab.require_tokens_of(&issuer);
        let client = lab.client().await;

        assert_eq!(client.get("/").await.status, 200);
        let good = issuer.token(&claims("testers"));
        assert_eq!(get(&client, &good).await.status, 200);
        // Istio's default: the destination does not get the token.
        assert_eq!(server.last().header("authorization"), "");

        let other = Issuer::new().token(&claims("testers"));
        let answer = get(&client, &other).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, "Jwt verification fails"));
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"http://web/a\", error=\"invalid_token\"");
        assert_eq!(lab.outcome(3).await, "401 - jwt_authn_access_denied{Jwt_verification_fails}");

        let expired = json!({"iss": "https://issuer.example", "sub": "alice", "exp": 1_000_000_000});
        let answer = get(&client, &issuer.token(&expired)).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, "Jwt is expired"));
        assert_eq!(server.count(), 2);
    });
}

#[test]
fn a_route_may_ask_for_a_claim_of_the_token() {
    test(async {
        let mut testers = forward(|f| f.destinations = vec![to("next")]);
        testers.conditions.claims = vec![route::ClaimMatch {
            path: vec!["group".to_owned()],
            value: route::ValueMatch::Text(route::TextMatch::exact("testers")),
            invert: false,
        }];
        let lab = Lab::start(vec![testers, default_route()]).await;
        lab.add_service("next", "10.96.0.2");
        let (one, next) = (Server::named("one").await, Server::named("next").await);
        lab.add_endpoint("web-1", "web", one.address);
        lab.add_endpoint("next-1", "next", next.address);
        let issuer = Issuer::new();
        lab.require_tokens_of(&issuer);
        let client = lab.client().await;

        assert_eq!(get(&client, &issuer.token(&claims("testers"))).await.body, "next");
        assert_eq!(get(&client, &issuer.token(&claims("others"))).await.body, "one");
        assert_eq!(client.get("/").await.body, "one");
    });
}
