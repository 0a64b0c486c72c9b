use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::Regex;
use crate::request::Source;
use crate::testing::{headers, request};

fn text(pattern: &str) -> ValueMatch {
    ValueMatch::Text(TextMatch::exact(pattern))
}

fn regex(pattern: &str) -> ValueMatch {
    ValueMatch::Text(TextMatch::Regex(Regex::new(pattern).unwrap()))
}

fn header(value: ValueMatch, invert: bool) -> Conditions {
    let name = HeaderName::from_static("x-a");
    Conditions { headers: vec![HeaderMatch { name, value, invert }], ..Conditions::default() }
}

#[test]
fn each_line_of_a_header_is_matched_alone() {
    let version = || regex("v[0-9]+");
    for (value, invert, lines, expected) in [
        (version(), false, &["v12"][..], true),
        (version(), false, &["v12x"], false),
        (version(), false, &["no", "v1"], true),
        (version(), false, &["v1,v2"], false),
        (version(), false, &[], false),
        (version(), true, &["v12"], false),
        (version(), true, &["no", "v1"], false),
        (version(), true, &["no", "neither"], true),
        (version(), true, &[], true),
        (text("1"), false, &["1"], true),
        (text("1"), false, &["1,2"], false),
        (ValueMatch::Present, false, &[""], true),
        (ValueMatch::Present, false, &[], false),
        (ValueMatch::Present, true, &[""], false),
        (ValueMatch::Present, true, &[], true),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| ("x-a", *line)).collect();
        let headers = headers(&lines);
        let conditions = header(value, invert);
        assert_eq!(conditions.is_met(&request(&headers)), expected, "{conditions:?} {lines:?}");
    }
}

#[test]
fn bytes_that_are_not_text_are_values_too() {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", http::HeaderValue::from_bytes(b"\xffab").unwrap());
    assert!(header(regex(".{3}"), false).is_met(&request(&headers)));
    assert!(!header(text("ab"), false).is_met(&request(&headers)));
}

#[test]
fn method_scheme_and_authority_are_compared_with_their_case() {
    let headers = HeaderMap::new();
    let request = Request { authority: "reviews:9080", ..request(&headers) };
    let with = |set: &dyn Fn(&mut Conditions)| {
        let mut conditions = Conditions::default();
        set(&mut conditions);
        conditions.unmet(&request).is_none()
    };
    assert!(with(&|conditions| conditions.method = Some(TextMatch::exact("GET"))));
    assert!(!with(&|conditions| conditions.method = Some(TextMatch::exact("get"))));
    assert!(with(&|conditions| conditions.scheme = Some(TextMatch::exact("http"))));
    assert!(!with(&|conditions| conditions.scheme = Some(TextMatch::exact("https"))));
    assert!(with(&|conditions| conditions.authority = Some(TextMatch::exact("reviews:9080"))));
    assert!(!with(&|conditions| conditions.authority = Some(TextMatch::exact("reviews"))), "the port counts");
    assert!(!with(&|conditions| conditions.authority = Some(TextMatch::exact("Reviews:9080"))));
    assert!(with(&|conditions| conditions.authority = Some(TextMatch::prefix("reviews"))));
}

#[test]
fn a_query_parameter_has_to_be_there() {
    let headers = HeaderMap::new();
    for (value, target, expected) in [
        (text("1"), "/q?a=1", true),
        (text("1"), "/q?a=2&a=1", false),
        (text("1"), "/q?a=%31", false),
        (text(""), "/q?a", true),
        (ValueMatch::Present, "/q?a", true),
        (ValueMatch::Present, "/q?b", false),
        (ValueMatch::Present, "/q", false),
        (regex("[0-9]+"), "/q?a=12", true),
        (ValueMatch::Text(TextMatch::prefix("1")), "/q?a=12", true),
    ] {
        let query = vec![QueryMatch { name: "a".into(), value }];
        let conditions = Conditions { query, ..Conditions::default() };
        assert_eq!(conditions.is_met(&Request { target, ..request(&headers) }), expected, "{conditions:?} {target}");
    }
}

#[test]
fn a_client_that_is_not_known_has_no_labels() {
    let headers = HeaderMap::new();
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Labels>();
    let conditions = Conditions { source_labels: labels(&[("app", "a")]), ..Conditions::default() };
    for (of_client, expected) in [
        (Some(labels(&[("app", "a"), ("version", "v1")])), true),
        (Some(labels(&[("app", "b")])), false),
        (Some(labels(&[])), false),
        (None, false),
    ] {
        let source = Source { labels: of_client.as_ref(), ..Source::default() };
        assert_eq!(conditions.is_met(&Request { source, ..request(&headers) }), expected, "{of_client:?}");
    }
    assert!(Conditions::default().is_met(&request(&headers)), "without a condition nobody has to be known");
}

#[test]
fn the_namespace_is_that_of_the_client() {
    let headers = HeaderMap::new();
    let conditions = Conditions { source_namespace: Some("shop".into()), ..Conditions::default() };
    for (namespace, expected) in [(Some("shop"), true), (Some("other"), false), (None, false)] {
        let source = Source { namespace, ..Source::default() };
        let request = Request { source, ..request(&headers) };
        assert_eq!(conditions.unmet(&request).is_none(), expected, "{namespace:?}");
    }
}

#[test]
fn a_claim_is_text_or_a_list_of_text() {
    let headers = HeaderMap::new();
    let claims = json!({"sub": "jason", "groups": ["dev", "admins"], "age": 7, "realm": {"role": "admin"}, "ok": true});
    for (path, value, invert, expected) in [
        (&["sub"][..], text("jason"), false, true),
        (&["sub"], text("Jason"), false, false),
        (&["groups"], text("admins"), false, true),
        (&["groups"], text("ops"), false, false),
        (&["groups"], text("ops"), true, true),
        (&["realm", "role"], text("admin"), false, true),
        (&["age"], text("7"), false, false),
        (&["ok"], text("true"), false, false),
        (&["sub"], ValueMatch::Present, false, true),
        (&["missing"], ValueMatch::Present, false, false),
        (&["missing"], text("x"), true, true),
        (&["sub", "name"], ValueMatch::Present, false, false),
    ] {
        let claim = ClaimMatch { path: path.iter().map(|name| (*name).into()).collect(), value, invert };
        let conditions = Conditions { claims: vec![claim], ..Conditions::default() };
        let with_token = Request { claims: Some(&claims), ..request(&headers) };
        assert_eq!(conditions.is_met(&with_token), expected, "{conditions:?}");
        assert_eq!(conditions.is_met(&request(&headers)), invert, "without a token: {conditions:?}");
    }
}

#[test]
fn the_condition_that_is_not_met_is_named() {
    let headers = HeaderMap::new();
    let mut conditions = header(text("1"), false);
    assert_eq!(conditions.unmet(&request(&headers)), Some(Unmet::Header(&HeaderName::from_static("x-a"))));
    conditions.path = PathMatch::Exact("/other".into());
    assert_eq!(conditions.unmet(&request(&headers)), Some(Unmet::Path));
}
