//! Issuers, tokens and rules for tests of this crate. Every signature is made here: there are no recorded ones.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::{Authenticator, FetchError, Fetcher, Fetching, JwtRule, KeySource, KeyStore, Outcome, Parts, TokenError};

pub(crate) const ISSUER: &str = "https://id.example";

/// The moment of the tests, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A private key.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

// Made once: an RSA key takes a moment.
static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
static P256: LazyLock<Signer> = LazyLock::new(|| ec("P-256"));
static P384: LazyLock<Signer> = LazyLock::new(|| ec("P-384"));
static P521: LazyLock<Signer> = LazyLock::new(|| ec("P-521"));
static ED: LazyLock<Signer> = LazyLock::new(|| Signer::Ed(Ed25519KeyPair::generate().unwrap()));

/// Names of all algorithms.
pub(crate) const ALGORITHMS: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// The key of the tests for an algorithm.
pub(crate) fn signer(algorithm: &str) -> &'static Signer {
    match algorithm {
        "ES256" => &P256,
        "ES384" => &P384,
        "ES512" => &P521,
        "EdDSA" => &ED,
        _ => &RSA,
    }
}

pub(crate) fn ec(curve: &'static str) -> Signer {
    let algorithm = match curve {
        "P-256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        "P-384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
    };
    Signer::Ec(curve, EcdsaKeyPair::generate(algorithm).unwrap())
}

pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    /// The public key.
    pub(crate) fn jwk(&self) -> Value {
        match self {
            Self::Rsa(key) => {
                // RSAPublicKey of RFC 8017: a sequence of two integers; of 2048 bits, so that the places are fixed.
                let der = key.public_key().as_ref();
                json!({"kty": "RSA", "n": base64url(&der[9..265]), "e": base64url(&der[267..])})
            }
            Self::Ec(curve, key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
                json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
            }
            Self::Ed(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key())}),
        }
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(_, key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and payload as text, signed as the algorithm says.
    pub(crate) fn token(&self, algorithm: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        format!("{signed}.{}", base64url(self.sign(algorithm, signed.as_bytes())))
    }
}

/// A key with members added or, with null, removed.
pub(crate) fn with(mut jwk: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Keys of the tests, each with the name of its algorithm as `kid`; those of RSA have one entry.
pub(crate) fn all_keys() -> String {
    let named = ["RS256", "ES256", "ES384", "ES512", "EdDSA"];
    jwks(&named.map(|name| with(signer(name).jwk(), json!({"kid": name}))))
}

/// Claims that are valid at `NOW`, with others added or, with null, removed.
pub(crate) fn claims(members: Value) -> Value {
    with(json!({"iss": ISSUER, "sub": "ann", "exp": NOW + 300}), members)
}

/// A token signed by the key of the tests for the algorithm, without `kid`.
pub(crate) fn token(algorithm: &str, claims: &Value) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT"}).to_string();
    signer(algorithm).token(algorithm, &header, &claims.to_string())
}

/// A rule for `ISSUER` with all keys of the tests.
pub(crate) fn rule() -> JwtRule {
    JwtRule {
        origin: "shop/jwt jwtRules[0]".to_owned(),
        issuer: Some(ISSUER.to_owned()),
        audiences: Vec::new(),
        keys: KeySource::Inline { jwks: all_keys() },
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        forward_original_token: false,
        output_payload_header: None,
        output_claims: Vec::new(),
        space_delimited_claims: Vec::new(),
    }
}

/// Nobody may fetch.
struct NoFetcher;

impl Fetcher for NoFetcher {
    fn fetch<'a>(&'a self, uri: &'a str, _limit: usize) -> Fetching<'a> {
        Box::pin(async move { Err(FetchError(format!("{uri} is not to be fetched"))) })
    }
}

/// A store for rules with inline keys.
pub(crate) fn no_store() -> KeyStore {
    KeyStore::new(Arc::new(NoFetcher), Handle::current())
}

pub(crate) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

pub(crate) fn get<'a>(target: &'a str, headers: &'a HeaderMap) -> Parts<'a> {
    Parts { method: "GET", target, headers }
}

/// Outcome of rules with inline keys for a request.
pub(crate) async fn outcome_of(rules: Vec<JwtRule>, target: &str, headers: &HeaderMap) -> Outcome {
    Authenticator::new(rules, &no_store()).authenticate(&get(target, headers), now()).await
}

/// Outcome for one token in `Authorization`.
pub(crate) async fn ask(rule: JwtRule, token: &str) -> Outcome {
    outcome_of(vec![rule], "/", &headers(&[("authorization", &format!("Bearer {token}"))])).await
}

pub(crate) async fn error(rule: JwtRule, token: &str) -> Option<TokenError> {
    match ask(rule, token).await {
        Outcome::Refused(refusal) => Some(refusal.error),
        Outcome::Authenticated { .. } => None,
        Outcome::Anonymous { .. } => panic!("the token was not seen"),
    }
}

pub(crate) fn with_keys(jwks: String) -> JwtRule {
    JwtRule { keys: KeySource::Inline { jwks }, ..rule() }
}
