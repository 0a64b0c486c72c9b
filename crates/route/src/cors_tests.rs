use super::*;
use crate::testing::{headers, request};

const METHOD: (&str, &str) = ("access-control-request-method", "PUT");

fn any() -> Cors {
    Cors {
        origins: vec![OriginMatch::Any],
        allow_methods: Some(HeaderValue::from_static("GET")),
        expose_headers: Some(HeaderValue::from_static("x-three")),
        max_age: Some(10),
        allow_credentials: true,
        ..Cors::default()
    }
}

fn one() -> Cors {
    Cors {
        origins: vec![OriginMatch::Text(TextMatch::exact("http://a"))],
        allow_headers: Some(HeaderValue::from_static("x")),
        ..Cors::default()
    }
}

/// Decision and headers without the prefix of their names, sorted.
fn decide(cors: &Cors, method: &str, lines: &[(&'static str, &str)]) -> (&'static str, Vec<String>) {
    let map = headers(lines);
    let (decision, headers) = match cors.decide(&Request { method, ..request(&map) }) {
        CorsDecision::Answer(headers) => ("answer", headers),
        CorsDecision::Forward(headers) => ("forward", headers),
    };
    let short = |name: &HeaderName| name.as_str().trim_start_matches("access-control-").to_owned();
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{}: {}", short(name), value.to_str().unwrap());
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    (decision, lines)
}

#[test]
fn a_preflight_of_an_allowed_origin_is_answered() {
    for origin in ["http://a", "https://b", "null"] {
        let (decision, lines) = decide(&any(), "OPTIONS", &[("origin", origin), METHOD]);
        let allowed = format!("allow-origin: {origin}");
        let expected =
            ["allow-credentials: true", "allow-methods: GET", &allowed, "expose-headers: x-three", "max-age: 10"];
        assert_eq!((decision, lines), ("answer", expected.map(str::to_owned).to_vec()), "{origin}");
    }
}

#[test]
fn only_options_with_origin_and_method_is_a_preflight() {
    for (method, lines, expected) in [
        (
            "OPTIONS",
            &[("origin", "http://a")][..],
            &["allow-credentials: true", "allow-origin: http://a", "expose-headers: x-three"][..],
        ),
        ("OPTIONS", &[METHOD], &[]),
        ("OPTIONS", &[("origin", ""), METHOD], &[]),
        (
            "OPTIONS",
            &[("origin", "http://a"), ("access-control-request-method", "")],
            &["allow-credentials: true", "allow-origin: http://a", "expose-headers: x-three"],
        ),
        (
            "GET",
            &[("origin", "http://b"), METHOD],
            &["allow-credentials: true", "allow-origin: http://b", "expose-headers: x-three"],
        ),
        ("GET", &[], &[]),
    ] {
        let expected = expected.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(decide(&any(), method, lines), ("forward", expected), "{method} {lines:?}");
    }
}

#[test]
fn a_foreign_origin_gets_no_headers() {
    let foreign = ("origin", "https://a");
    assert_eq!(decide(&one(), "GET", &[foreign]), ("forward", Vec::new()));
    assert_eq!(decide(&one(), "OPTIONS", &[foreign, METHOD]), ("forward", Vec::new()));
    assert_eq!(decide(&one(), "OPTIONS", &[("origin", "HTTP://A"), METHOD]), ("forward", Vec::new()), "case counts");
}

#[test]
fn a_foreign_preflight_can_be_answered_without_allowing_the_origin() {
    let cors = Cors { ignore_unmatched_preflights: true, ..one() };
    assert_eq!(
        decide(&cors, "OPTIONS", &[("origin", "https://a"), METHOD]),
        ("answer", vec!["allow-headers: x".to_owned()])
    );
    assert_eq!(decide(&cors, "GET", &[("origin", "https://a")]), ("forward", Vec::new()));
}
