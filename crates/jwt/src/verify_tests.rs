//! Known attacks on tokens, and the ordinary cases beside them. Every token here is signed in the test.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    ALGORITHMS, ISSUER, NOW, all_keys, ask, base64url, claims, ec, error, jwks, outcome_of, rule, signer, token, with,
    with_keys,
};
use crate::{KeySource, Outcome};

const FORM: &str = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";

#[tokio::test]
async fn a_token_of_each_algorithm_is_verified() {
    for algorithm in ALGORITHMS {
        let Outcome::Authenticated { token, .. } = ask(rule(), &token(algorithm, &claims(json!({})))).await else {
            panic!("{algorithm} is refused")
        };
        assert_eq!(token.principal.as_deref(), Some("https://id.example/ann"), "{algorithm}");
    }
}

#[tokio::test]
async fn a_signature_of_one_algorithm_is_none_of_another() {
    for signed in ALGORITHMS {
        for named in ALGORITHMS.into_iter().filter(|named| *named != signed) {
            let header = json!({"alg": named}).to_string();
            let forged = signer(signed).token(signed, &header, &claims(json!({})).to_string());
            assert_eq!(error(rule(), &forged).await, Some(TokenError::BadSignature), "{signed} as {named}");
        }
    }
}

#[tokio::test]
async fn an_algorithm_without_public_keys_is_refused() {
    // The classic confusion: the public key as the secret of an HMAC.
    let payload = claims(json!({})).to_string();
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, all_keys().as_bytes());
    for name in ["HS256", "HS384", "HS512", "none", "None", "NONE", "nOnE", "", "RS1", "rs256", "ES256K", "RSA-OAEP"] {
        let signed = format!("{}.{}", base64url(json!({"alg": name}).to_string()), base64url(&payload));
        let hmac = base64url(aws_lc_rs::hmac::sign(&secret, signed.as_bytes()));
        assert_eq!(
            error(rule(), &format!("{signed}.{hmac}")).await,
            Some(TokenError::UnsupportedAlgorithm),
            "{name:?}"
        );
        // What Envoy answers to a section that is empty.
        let unsigned = error(rule(), &format!("{signed}.")).await.map(|error| error.to_string());
        assert_eq!(unsigned.as_deref(), Some(FORM), "{name:?}");
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    for algorithm in ALGORITHMS {
        let good = token(algorithm, &claims(json!({})));
        let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
        let admin = base64url(claims(json!({"sub": "admin"})).to_string());
        let other_header = base64url(json!({"alg": algorithm, "typ": "jwt"}).to_string());
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let (mut flipped, longer, zeros) = (bytes.clone(), [bytes.clone(), vec![0]].concat(), vec![0; bytes.len()]);
        flipped[0] ^= 1;
        for forged in [
            format!("{header}.{admin}.{signature}"),
            format!("{other_header}.{payload}.{signature}"),
            format!("{header}.{payload}.{}", base64url(&flipped)),
            format!("{header}.{payload}.{}", base64url(&bytes[1..])),
            format!("{header}.{payload}.{}", base64url(&longer)),
            // r = s = 0 (CVE-2022-21449).
            format!("{header}.{payload}.{}", base64url(&zeros)),
        ] {
            assert_eq!(error(rule(), &forged).await, Some(TokenError::BadSignature), "{algorithm} {forged}");
        }
    }
}

#[tokio::test]
async fn an_ecdsa_signature_in_der_is_refused() {
    let good = token("ES256", &claims(json!({})));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let integer = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat();

    assert_eq!(error(rule(), &format!("{signed}.{}", base64url(der))).await, Some(TokenError::BadSignature));
}

#[tokio::test]
async fn a_key_that_comes_with_the_token_is_not_used() {
    let thief = ec("P-256");
    for members in [
        json!({"jwk": thief.jwk()}),
        json!({"jku": "https://thief.example/keys"}),
        json!({"x5u": "https://thief.example/cert"}),
        json!({"x5c": ["MIIB"]}),
        json!({"kid": "ES256", "jwk": thief.jwk()}),
        json!({"kid": "../../../dev/null"}),
    ] {
        let header = with(json!({"alg": "ES256"}), members.clone()).to_string();
        let forged = thief.token("ES256", &header, &claims(json!({})).to_string());
        let expected = if header.contains("dev/null") { TokenError::NoMatchingKey } else { TokenError::BadSignature };
        assert_eq!(error(rule(), &forged).await, Some(expected), "{members}");
    }
}

#[tokio::test]
async fn an_extension_that_must_be_understood_is_refused() {
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!("b64")] {
        let header = json!({"alg": "ES256", "crit": crit, "b64": false}).to_string();
        let signed = signer("ES256").token("ES256", &header, &claims(json!({})).to_string());
        assert_eq!(error(rule(), &signed).await, Some(TokenError::CriticalExtension), "{crit}");
    }
}

#[tokio::test]
async fn the_form_of_a_token_is_checked_in_envoys_words() {
    let good = token("ES256", &claims(json!({})));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let signed = |header: &str, payload: &str| signer("ES256").token("ES256", header, payload);
    let es256 = r#"{"alg":"ES256"}"#;
    for (text, expected) in [
        ("x".to_owned(), FORM),
        (format!("{header}.{payload}"), FORM),
        (format!("{good}.x"), FORM),
        (format!("{header}.{payload}."), FORM),
        (format!("{header}..{signature}"), FORM),
        (format!(".{payload}.{signature}"), FORM),
        (format!("{header}.k.iv.{payload}.{signature}"), FORM),
        (format!("{good},{good}"), FORM),
        (format!("{header}=.{payload}.{signature}"), "Jwt header is an invalid Base64url encoded"),
        (format!("{header}+.{payload}.{signature}"), "Jwt header is an invalid Base64url encoded"),
        (format!("{header}.{payload}==.{signature}"), "Jwt payload is an invalid Base64url encoded"),
        (format!("{header}.{payload}.{signature}=="), "Jwt signature is an invalid Base64url encoded"),
        (format!("{header}.{payload}.{signature}\u{e9}"), "Jwt signature is an invalid Base64url encoded"),
        (signed("x", "{}"), "Jwt header is an invalid JSON"),
        (signed("[]", "{}"), "Jwt header is an invalid JSON"),
        (signed(r#"{"alg":"ES256"}{}"#, "{}"), "Jwt header is an invalid JSON"),
        (signed("{}", "{}"), "Jwt header [alg] field is required and must be a string"),
        (signed(r#"{"alg":256}"#, "{}"), "Jwt header [alg] field is required and must be a string"),
        (signed(r#"{"alg":null}"#, "{}"), "Jwt header [alg] field is required and must be a string"),
        (signed(r#"{"alg":["ES256"]}"#, "{}"), "Jwt header [alg] field is required and must be a string"),
        (signed(r#"{"alg":"ES256","kid":1}"#, "{}"), "Jwt header [kid] field is not a string"),
        (signed(es256, "x"), "Jwt payload is an invalid JSON"),
        (signed(es256, "null"), "Jwt payload is an invalid JSON"),
        (signed(es256, r#"{"iss":1}"#), "Jwt payload [iss] field is not a string"),
        (signed(es256, r#"{"sub":["a"]}"#), "Jwt payload [sub] field is not a string"),
        (signed(es256, r#"{"jti":1}"#), "Jwt payload [jti] field is not a string"),
        (signed(es256, r#"{"iat":"now"}"#), "Jwt payload [iat] field is not an integer"),
        (signed(es256, r#"{"nbf":-1}"#), "Jwt payload [nbf] field is not a positive 64 bit integer"),
        (signed(es256, r#"{"exp":"1"}"#), "Jwt payload [exp] field is not an integer"),
        (signed(es256, r#"{"exp":1e30}"#), "Jwt payload [exp] field is not a positive 64 bit integer"),
        (signed(es256, r#"{"exp":null}"#), "Jwt payload [exp] field is not an integer"),
        (signed(es256, r#"{"aud":1}"#), "Jwt payload [aud] field is not a string or string list"),
        (signed(es256, r#"{"aud":["a",1]}"#), "Jwt payload [aud] field is not a string or string list"),
        ("x".repeat(32_769), "Jwt is longer than 32768 bytes"),
    ] {
        let found = error(rule(), &text).await.map(|error| error.to_string());
        assert_eq!(found.as_deref(), Some(expected), "{}", &text[..text.len().min(200)]);
    }
    // The last character of a text of this length has bits that mean nothing: they have to be zero.
    let payload = base64url("a");
    assert_eq!(payload, "YQ");
    let malleable = format!("{header}.YR.{signature}");
    let found = error(rule(), &malleable).await.map(|error| error.to_string());
    assert_eq!(found.as_deref(), Some("Jwt payload is an invalid Base64url encoded"));
}

#[tokio::test]
async fn times_have_a_minute_of_tolerance() {
    for (members, expected) in [
        (json!({"exp": NOW + 1}), None),
        (json!({"exp": NOW}), None),
        (json!({"exp": NOW - 60}), None),
        (json!({"exp": NOW - 61}), Some(TokenError::Expired)),
        (json!({"exp": 0}), Some(TokenError::Expired)),
        (json!({"exp": NOW as f64 - 59.5}), None),
        (json!({"exp": null}), None),
        (json!({"exp": u64::MAX}), None),
        (json!({"nbf": NOW}), None),
        (json!({"nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(TokenError::NotYetValid)),
        (json!({"nbf": u64::MAX}), Some(TokenError::NotYetValid)),
        (json!({"nbf": NOW + 61, "exp": NOW - 61}), Some(TokenError::NotYetValid)),
        // As with Envoy, the time of issue decides nothing.
        (json!({"iat": NOW + 3600}), None),
    ] {
        assert_eq!(error(rule(), &token("ES256", &claims(members.clone()))).await, expected, "{members}");
    }
}

#[tokio::test]
async fn issuer_and_audience_are_compared() {
    let of = |issuer: &str, audiences: &[&str]| JwtRule {
        issuer: (!issuer.is_empty()).then(|| issuer.to_owned()),
        audiences: audiences.iter().map(|audience| (*audience).to_owned()).collect(),
        ..rule()
    };
    for (rule, members, expected) in [
        (of(ISSUER, &[]), json!({"iss": "https://id.example/"}), Some(TokenError::UnknownIssuer)),
        (of(ISSUER, &[]), json!({"iss": null}), Some(TokenError::UnknownIssuer)),
        (of("", &[]), json!({"iss": null}), None),
        (of("", &[]), json!({"iss": "https://other.example"}), None),
        (of(ISSUER, &["shop"]), json!({"aud": "shop"}), None),
        (of(ISSUER, &["shop"]), json!({"aud": ["bank", "shop"]}), None),
        (of(ISSUER, &["shop"]), json!({"aud": "shop2"}), Some(TokenError::AudienceNotAllowed)),
        (of(ISSUER, &["shop"]), json!({"aud": []}), Some(TokenError::AudienceNotAllowed)),
        (of(ISSUER, &["shop"]), json!({}), Some(TokenError::AudienceNotAllowed)),
        (of(ISSUER, &["bank", "shop"]), json!({"aud": "shop"}), None),
        (of(ISSUER, &["shop.example"]), json!({"aud": "https://shop.example/"}), None),
        (of(ISSUER, &["http://shop.example"]), json!({"aud": "shop.example"}), None),
        (of(ISSUER, &["shop.example"]), json!({"aud": "SHOP.example"}), Some(TokenError::AudienceNotAllowed)),
        (of(ISSUER, &["shop.example"]), json!({"aud": "shop.example/x"}), Some(TokenError::AudienceNotAllowed)),
        (of(ISSUER, &[]), json!({"aud": "any"}), None),
        // What is wrong first is said, in Envoy's order.
        (of(ISSUER, &["shop"]), json!({"iss": "x", "exp": 1, "aud": "x"}), Some(TokenError::UnknownIssuer)),
        (of(ISSUER, &["shop"]), json!({"exp": 1, "aud": "x"}), Some(TokenError::Expired)),
    ] {
        assert_eq!(error(rule, &token("ES256", &claims(members.clone()))).await, expected, "{members}");
    }
}

#[tokio::test]
async fn a_key_is_found_by_its_id_and_its_algorithm() {
    let (own, other) = (signer("ES256").jwk(), ec("P-256").jwk());
    let id = |jwk: &Value, id: &str| with(jwk.clone(), json!({"kid": id}));
    let es256 = |kid: Value| {
        let header = with(json!({"alg": "ES256"}), json!({"kid": kid})).to_string();
        signer("ES256").token("ES256", &header, &claims(json!({})).to_string())
    };
    for (keys, kid, expected) in [
        (vec![id(&other, "a"), id(&own, "b")], json!("b"), None),
        (vec![id(&other, "a"), id(&own, "b")], json!("a"), Some(TokenError::BadSignature)),
        (vec![id(&other, "a"), id(&own, "b")], json!("c"), Some(TokenError::NoMatchingKey)),
        // Without an id on one side every key is tried, as are all keys of the same id.
        (vec![id(&other, "a"), id(&own, "b")], Value::Null, None),
        (vec![other.clone(), own.clone()], json!("b"), None),
        (vec![id(&other, "a"), id(&own, "a")], json!("a"), None),
        (vec![with(own.clone(), json!({"alg": "ES256"}))], Value::Null, None),
        (vec![signer("EdDSA").jwk()], Value::Null, Some(TokenError::NoMatchingKey)),
    ] {
        assert_eq!(error(with_keys(jwks(&keys)), &es256(kid.clone())).await, expected, "{kid} {keys:?}");
    }
    let rs512_only = with(signer("RS256").jwk(), json!({"alg": "RS512"}));
    let rule = with_keys(jwks(&[rs512_only]));
    assert_eq!(error(rule.clone(), &token("RS256", &claims(json!({})))).await, Some(TokenError::NoMatchingKey));
    assert_eq!(error(rule, &token("RS512", &claims(json!({})))).await, None);
}

#[tokio::test]
async fn a_rule_without_usable_keys_refuses_its_tokens_and_passes_requests_without() {
    let good = token("ES256", &claims(json!({})));
    for keys in [
        KeySource::Inline { jwks: "x".to_owned() },
        KeySource::Inline { jwks: r#"{"keys":[]}"#.to_owned() },
        KeySource::Unusable { reason: "no keys".to_owned() },
    ] {
        let rule = JwtRule { keys, ..rule() };
        assert_eq!(error(rule.clone(), &good).await, Some(TokenError::NoMatchingKey));
        assert!(matches!(outcome_of(vec![rule], "/", &HeaderMap::new()).await, Outcome::Anonymous { .. }));
    }
}

proptest! {
    #[test]
    fn text_that_nobody_signed_is_no_token(text in "[A-Za-z0-9_.-]{0,80}", parts in prop::array::uniform3(any::<Vec<u8>>())) {
        prop_assert!(Token::parse(&text).is_err());
        let [header, payload, signature] = parts.map(base64url);
        let text = format!("{header}.{payload}.{signature}");
        prop_assert!(Token::parse(&text).is_err());
    }
}
