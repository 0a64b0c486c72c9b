use http::HeaderName;
use serde_json::json;

use super::*;
use crate::testing::{ask, base64url, claims, headers, no_store, now, outcome_of, rule, token};
use crate::{ClaimHeader, HeaderLocation};

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

#[tokio::test]
async fn a_token_is_looked_for_where_the_rule_says() {
    let good = token("ES256", &claims(json!({})));
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let header = |of: &'static str, prefix: &str| HeaderLocation { name: name(of), prefix: prefix.to_owned() };
    let default = rule();
    let headers_only = JwtRule { from_headers: vec![header("x-jwt", ""), header("x-auth", "Token ")], ..rule() };
    let params = JwtRule { from_params: texts(&["t"]), ..rule() };
    let cookies = JwtRule { from_cookies: texts(&["session"]), ..rule() };
    const YES: Option<bool> = Some(true);
    for (rule, target, lines, expected) in [
        (&default, "/", vec![("authorization", format!("Bearer {good}"))], YES),
        (&default, "/", vec![("authorization", format!("bearer {good}"))], YES),
        (&default, "/", vec![("authorization", format!("Bearer   {good} "))], YES),
        (&default, "/", vec![("authorization", format!("Basic {good}"))], None),
        (&default, "/", vec![("authorization", "Bearer ".to_owned())], None),
        (&default, "/", vec![("authorization", good.clone())], None),
        (&default, "/", vec![("authorization", "Bearer bad".to_owned())], Some(false)),
        (&default, &format!("/?access_token={good}"), vec![], YES),
        (&default, "/?access_token=bad", vec![], Some(false)),
        (&default, "/?access_token=", vec![], None),
        (&default, &format!("/?access%5ftoken={good}"), vec![], YES),
        (&default, "/", vec![("x-jwt", good.clone())], None),
        (&headers_only, "/", vec![("x-jwt", good.clone())], YES),
        (&headers_only, "/", vec![("x-auth", format!("Token {good}"))], YES),
        (&headers_only, "/", vec![("x-auth", good.clone())], None),
        (&headers_only, "/?access_token=bad", vec![("authorization", "Bearer bad".to_owned())], None),
        (&params, &format!("/?a=1&t={good}"), vec![], YES),
        (&params, "/?a=1&T=bad", vec![], None),
        (&cookies, "/", vec![("cookie", format!("a=b; session={good}; c=d"))], YES),
        (&cookies, "/", vec![("cookie", "a=b".to_owned()), ("cookie", format!("session={good}"))], YES),
        (&cookies, "/", vec![("cookie", "session2=x; xsession=x".to_owned())], None),
        (&cookies, "/", vec![("cookie", "a=\u{e9}; session=bad".to_owned())], Some(false)),
        // All tokens of a rule have to be valid: the destination may look at any of them.
        (
            &default,
            "/",
            vec![("authorization", format!("Bearer {good}")), ("authorization", "Bearer bad".to_owned())],
            Some(false),
        ),
        (&default, "/?access_token=bad", vec![("authorization", format!("Bearer {good}"))], Some(false)),
        (&default, &format!("/?access_token={good}&access_token=bad"), vec![], Some(false)),
        (&headers_only, "/", vec![("x-jwt", good.clone()), ("x-auth", "Token bad".to_owned())], Some(false)),
    ] {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let found = match outcome_of(vec![rule.clone()], target, &headers(&lines)).await {
            Outcome::Anonymous { .. } => None,
            Outcome::Authenticated { .. } => Some(true),
            Outcome::Refused(_) => Some(false),
        };
        assert_eq!(found, expected, "{target} {lines:?}");
    }
}

#[tokio::test]
async fn a_request_with_many_tokens_is_refused() {
    let good = token("ES256", &claims(json!({})));
    let line = format!("Bearer {good}");
    let lines = vec![("authorization", line.as_str()); 9];

    let Outcome::Refused(refusal) = outcome_of(vec![rule()], "/", &headers(&lines)).await else { panic!("passed") };

    assert_eq!(refusal.error, TokenError::TooMany);
}

#[tokio::test]
async fn one_rule_that_accepts_is_enough() {
    let other = JwtRule {
        origin: "shop/jwt jwtRules[1]".to_owned(),
        issuer: Some("https://other.example".to_owned()),
        from_headers: vec![HeaderLocation { name: name("x-other"), prefix: String::new() }],
        ..rule()
    };
    let (own, foreign) =
        (token("ES256", &claims(json!({}))), token("ES256", &claims(json!({"iss": "https://other.example"}))));
    let unknown = token("ES256", &claims(json!({"iss": "https://unknown.example"})));
    for (authorization, x_other, expected) in [
        (own.as_str(), "bad", Ok(Some("shop/jwt jwtRules[0]"))),
        ("bad", foreign.as_str(), Ok(Some("shop/jwt jwtRules[1]"))),
        (own.as_str(), foreign.as_str(), Ok(Some("shop/jwt jwtRules[0]"))),
        ("", foreign.as_str(), Ok(Some("shop/jwt jwtRules[1]"))),
        ("", "", Ok(None)),
        ("bad", "", Err("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")),
        // The place of one issuer is not that of the other.
        (foreign.as_str(), "", Err("Jwt issuer is not configured")),
        (unknown.as_str(), "", Err("Jwt issuer is not configured")),
        (unknown.as_str(), own.as_str(), Err("Jwt issuer is not configured")),
        // The last of several is looked at first.
        ("bad", own.as_str(), Err("Jwt issuer is not configured")),
    ] {
        let bearer = format!("Bearer {authorization}");
        let lines = headers(&[("authorization", &bearer), ("x-other", x_other)]);
        let found = match outcome_of(vec![rule(), other.clone()], "/", &lines).await {
            Outcome::Anonymous { .. } => Ok(None),
            Outcome::Authenticated { token, .. } => Ok(Some(token.rule)),
            Outcome::Refused(refusal) => Err(refusal.error.to_string()),
        };
        assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
    }
}

#[tokio::test]
async fn two_issuers_may_each_have_a_token_in_the_same_places() {
    let other = JwtRule { issuer: Some("https://other.example".to_owned()), ..rule() };
    let foreign = token("ES256", &claims(json!({"iss": "https://other.example"})));
    let bearer = format!("Bearer {}", token("ES256", &claims(json!({}))));
    let lines = headers(&[("authorization", &bearer)]);

    let both = outcome_of(vec![rule(), other.clone()], &format!("/?access_token={foreign}"), &lines).await;
    let bad = outcome_of(vec![rule(), other], "/?access_token=bad", &lines).await;

    assert!(matches!(both, Outcome::Authenticated { token, .. } if token.rule == "shop/jwt jwtRules[0]"));
    assert!(matches!(bad, Outcome::Refused(_)));
}

#[tokio::test]
async fn claims_have_the_form_that_policies_compare() {
    let members = json!({
        "aud": ["shop", "bank"], "azp": "app", "scope": "read  write", "permission": "x", "roles": "a b",
        "groups": ["dev"], "realm": {"role": "admin"},
    });
    let rule = JwtRule { space_delimited_claims: vec!["roles".to_owned(), "groups".to_owned()], ..rule() };

    let Outcome::Authenticated { token, .. } = ask(rule, &token("EdDSA", &claims(members))).await else {
        panic!("refused")
    };

    assert_eq!(token.audiences, ["shop", "bank"]);
    assert_eq!(token.presenter.as_deref(), Some("app"));
    assert_eq!(token.claims["scope"], json!(["read", "write"]));
    assert_eq!(token.claims["permission"], json!(["x"]));
    assert_eq!(token.claims["roles"], json!(["a", "b"]));
    assert_eq!(token.claims["groups"], json!(["dev"]));
    assert_eq!(token.claims["realm"]["role"], json!("admin"));
    assert!(!format!("{token:?}").contains("admin"), "claims are not logged");
}

#[tokio::test]
async fn a_principal_needs_issuer_and_subject() {
    let any = JwtRule { issuer: None, ..rule() };
    for members in [json!({"sub": null}), json!({"sub": ""}), json!({"iss": null}), json!({"iss": ""})] {
        let Outcome::Authenticated { token, .. } = ask(any.clone(), &token("ES256", &claims(members))).await else {
            panic!("refused")
        };
        assert_eq!(token.principal, None);
    }
}

fn output() -> JwtRule {
    let claim = |header, path: &[&str]| ClaimHeader {
        header: name(header),
        claim: path.iter().map(|name| (*name).to_owned()).collect(),
    };
    let output_claims = vec![
        claim("x-sub", &["sub"]),
        claim("x-level", &["level"]),
        claim("x-ok", &["ok"]),
        claim("x-role", &["realm", "role"]),
        claim("x-groups", &["groups"]),
        claim("x-none", &["none"]),
        claim("x-empty", &["empty"]),
        claim("x-share", &["share"]),
        claim("x-evil", &["evil"]),
    ];
    JwtRule { output_payload_header: Some(name("x-payload")), output_claims, ..rule() }
}

#[tokio::test]
async fn the_destination_gets_claims_and_not_the_token() {
    let members = json!({
        "level": 3, "ok": true, "groups": ["a", "b?>"], "empty": "", "share": 1.5, "realm": {"role": "admin"}, "evil": "a\r\nx-sub: admin", "scope": "a b",
    });
    let claims = claims(members);
    let token = token("ES256", &claims);
    let bearer = format!("Bearer {token}");
    let mut lines =
        headers(&[("authorization", &bearer), ("x-sub", "forged"), ("x-evil", "forged"), ("x-other", "kept")]);
    let target = format!("/a?b=1&access_token={token}");

    let Outcome::Authenticated { changes, .. } = outcome_of(vec![output()], &target, &lines).await else {
        panic!("refused")
    };
    changes.apply(&mut lines);

    for (header, expected) in [
        ("authorization", None),
        ("x-sub", Some("ann".to_owned())),
        ("x-level", Some("3".to_owned())),
        ("x-ok", Some("true".to_owned())),
        ("x-role", Some("admin".to_owned())),
        // ["a","b?>"], with the letters and the padding of base64, not of base64url.
        ("x-groups", Some("WyJhIiwiYj8+Il0=".to_owned())),
        ("x-empty", None),
        ("x-share", Some("1.500000".to_owned())),
        ("x-none", None),
        ("x-evil", None),
        ("x-payload", Some(base64url(claims.to_string()))),
        ("x-other", Some("kept".to_owned())),
    ] {
        let found: Vec<_> = lines.get_all(header).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        assert_eq!(found, Vec::from_iter(expected), "{header}");
    }
    assert_eq!(crate::without_params(&target, &changes.remove_params).as_deref(), Some("/a?b=1"));
}

#[tokio::test]
async fn a_client_cannot_forge_the_headers_of_claims() {
    let forged = [("x-sub", "admin"), ("x-payload", "e30")];
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    let rules = || Authenticator::new(vec![output()], &no_store());
    for (method, lines) in [("GET", forged.to_vec()), ("OPTIONS", [forged, preflight].concat())] {
        let mut lines = headers(&lines);
        let rules = rules();
        let request = Parts { method, target: "/", headers: &lines };
        let Outcome::Anonymous { changes } = rules.authenticate(&request, now()).await else { panic!("refused") };
        changes.apply(&mut lines);
        assert!(!lines.contains_key("x-sub") && !lines.contains_key("x-payload"));
    }
}

#[tokio::test]
async fn a_token_is_forwarded_where_the_rule_says_and_a_cookie_always() {
    let good = token("ES256", &claims(json!({})));
    let bearer = format!("Bearer {good}");
    let forwarding = JwtRule { forward_original_token: true, ..rule() };
    let mut lines = headers(&[("authorization", &bearer)]);

    let Outcome::Authenticated { changes, .. } = outcome_of(vec![forwarding], "/", &lines).await else { panic!() };
    changes.apply(&mut lines);
    assert_eq!(lines["authorization"], bearer.as_str());

    let cookies = JwtRule { from_cookies: vec!["session".to_owned()], ..rule() };
    let mut lines = headers(&[("cookie", &format!("session={good}"))]);
    let Outcome::Authenticated { changes, .. } = outcome_of(vec![cookies], "/", &lines).await else { panic!() };
    changes.apply(&mut lines);
    assert!(lines.contains_key("cookie"));
}

#[tokio::test]
async fn a_preflight_needs_no_valid_token() {
    let rules = Authenticator::new(vec![rule()], &no_store());
    for (lines, passes) in [
        (vec![("origin", "https://a.example"), ("access-control-request-method", "GET")], true),
        (vec![("origin", ""), ("access-control-request-method", "GET")], false),
        (vec![("origin", "https://a.example")], false),
    ] {
        let lines = headers(&[lines, vec![("authorization", "Bearer bad")]].concat());
        let request = Parts { method: "OPTIONS", target: "/", headers: &lines };
        let outcome = rules.authenticate(&request, now()).await;
        assert_eq!(matches!(outcome, Outcome::Anonymous { .. }), passes, "{lines:?}");
    }
}
