use model::StringMatch;

use super::super::message::{HeaderValue as WireValue, HttpStatus, Status};
use super::*;

fn http(status: u16, lines: &[(&str, &str)], body: &str) -> ::http::Response<Vec<u8>> {
    let mut answer = ::http::Response::builder().status(status);
    for (name, value) in lines {
        answer = answer.header(*name, *value);
    }
    answer.body(body.as_bytes().to_vec()).unwrap()
}

fn lists() -> HttpProtocol {
    HttpProtocol {
        upstream_on_allow: vec![StringMatch::Exact("X-User".into()), StringMatch::Prefix("x-auth-".into())],
        downstream_on_allow: vec![StringMatch::Exact("set-cookie".into())],
        downstream_on_deny: vec![StringMatch::Exact("x-reason".into())],
        ..HttpProtocol::default()
    }
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = lines.iter();
    lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn text(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn edits_of(answer: Answer) -> Edits {
    match answer {
        Answer::Allow(edits) => edits,
        Answer::Deny(denial) => panic!("{denial:?}"),
    }
}

fn denial_of(answer: Answer) -> Denial {
    match answer {
        Answer::Deny(denial) => denial,
        Answer::Allow(edits) => panic!("{edits:?}"),
    }
}

#[test]
fn an_http_provider_that_allows_replaces_headers_of_its_lists() {
    let lines = [
        ("x-user", "ann"),
        ("x-auth-role", "a"),
        ("x-auth-role", "b"),
        ("x-other", "1"),
        ("set-cookie", "s=1"),
        ("content-length", "0"),
        ("x-envoy-auth-headers-to-remove", "authorization, host , :path"),
    ];
    let edits = edits_of(http_answer(&lists(), &http(200, &lines, "")).unwrap());

    let mut request =
        headers(&[("x-user", "forged"), ("x-auth-role", "forged"), ("authorization", "secret"), ("host", "a")]);
    edits.apply_upstream(&mut request);
    assert_eq!(text(&request), ["host: a", "x-auth-role: a", "x-auth-role: b", "x-user: ann"]);
    let mut answer = headers(&[("set-cookie", "own=1")]);
    edits.apply_downstream(&mut answer);
    assert_eq!(text(&answer), ["set-cookie: own=1", "set-cookie: s=1"]);
}

#[test]
fn an_http_provider_allows_with_200_only() {
    for status in [201, 204, 302, 400, 401, 403, 404, 429] {
        let denial = denial_of(http_answer(&HttpProtocol::default(), &http(status, &[], "no")).unwrap());
        assert_eq!((denial.status, denial.body.as_slice(), denial.details), (status, &b"no"[..], "ext_authz_denied"));
    }
    for status in [500, 503, 599] {
        let answer = http_answer(&HttpProtocol::default(), &http(status, &[], ""));
        assert_eq!(answer, Err(AnswerError::Status(status)));
    }
    // No final status.
    assert_eq!(denial_of(http_answer(&HttpProtocol::default(), &http(101, &[], "")).unwrap()).status, 403);
}

#[test]
fn a_client_gets_the_headers_of_a_denial_that_the_list_names() {
    let lines = [
        ("x-reason", "1"),
        ("x-secret", "1"),
        ("location", "/login"),
        ("www-authenticate", "Basic"),
        ("content-length", "2"),
        ("transfer-encoding", "chunked"),
        ("x-envoy-auth-headers-to-remove", "x-a"),
    ];
    let denied = http(302, &lines, "no");
    let of = |protocol: &HttpProtocol| text(&denial_of(http_answer(protocol, &denied).unwrap()).headers);
    assert_eq!(of(&lists()), ["location: /login", "www-authenticate: Basic", "x-reason: 1"]);
    assert_eq!(
        of(&HttpProtocol::default()),
        ["location: /login", "www-authenticate: Basic", "x-reason: 1", "x-secret: 1"]
    );
}

fn option(key: &str, value: &str, append: Option<bool>, action: AppendAction) -> HeaderValueOption {
    let header = WireValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), append, append_action: action.into() }
}

const DEFAULT: AppendAction = AppendAction::AppendIfExistsOrAdd;

#[test]
fn a_grpc_provider_edits_the_request_and_the_answer() {
    let ok = OkHttpResponse {
        headers: vec![
            option("X-User", "ann", None, DEFAULT),
            option("x-role", "b", Some(true), DEFAULT),
            option("x-absent", "b", Some(true), DEFAULT),
            option("content-length", "7", None, DEFAULT),
        ],
        headers_to_remove: vec!["authorization".to_owned(), "host".to_owned(), ":path".to_owned()],
        response_headers_to_add: vec![
            option("x-a", "new", None, DEFAULT),
            option("x-b", "new", None, AppendAction::AddIfAbsent),
            option("x-c", "new", None, AppendAction::OverwriteIfExistsOrAdd),
            option("x-d", "new", None, AppendAction::OverwriteIfExists),
            option("x-e", "new", Some(false), DEFAULT),
        ],
    };
    let message = CheckResponse { status: Some(Status { code: 0 }), ok_response: Some(ok), ..CheckResponse::default() };
    let edits = edits_of(grpc_answer(&message.encode_to_vec()).unwrap());

    let mut request = headers(&[("x-user", "forged"), ("x-role", "a"), ("authorization", "secret"), ("host", "h")]);
    edits.apply_upstream(&mut request);
    assert_eq!(text(&request), ["host: h", "x-role: a", "x-role: b", "x-user: ann"]);
    let mut answer = headers(&[("x-a", "old"), ("x-b", "old"), ("x-c", "old"), ("x-e", "old")]);
    edits.apply_downstream(&mut answer);
    assert_eq!(text(&answer), ["x-a: new", "x-a: old", "x-b: old", "x-c: new", "x-e: new"]);
}

#[test]
fn a_grpc_provider_denies_with_any_other_status() {
    for (code, denied, status, body) in [
        (7, None, 403, ""),
        (16, Some((401, "login")), 401, "login"),
        (1, Some((302, "")), 302, ""),
        (-1, Some((0, "x")), 403, "x"),
        (7, Some((42, "x")), 403, "x"),
        (7, Some((600, "x")), 403, "x"),
    ] {
        let denied_response = denied.map(|(code, body): (i32, &str)| DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers: vec![option("location", "/login", None, DEFAULT)],
            body: body.to_owned(),
        });
        let is_given = denied_response.is_some();
        let message = CheckResponse { status: Some(Status { code }), denied_response, ..CheckResponse::default() };
        let denial = denial_of(grpc_answer(&message.encode_to_vec()).unwrap());
        assert_eq!((denial.status, denial.body.as_slice()), (status, body.as_bytes()), "{code} {denied:?}");
        assert_eq!(denial.headers.contains_key("location"), is_given);
    }
}

#[test]
fn an_answer_that_cannot_be_used_is_an_error() {
    let ok = |key: &str, value: &str| {
        let ok = OkHttpResponse { headers: vec![option(key, value, None, DEFAULT)], ..OkHttpResponse::default() };
        CheckResponse { ok_response: Some(ok), ..CheckResponse::default() }.encode_to_vec()
    };
    assert_eq!(grpc_answer(&[0xff]), Err(AnswerError::Message));
    for (key, value) in [("a b", "x"), (":path", "/admin"), ("", "x"), ("x-a", "a\r\nx-b: c")] {
        assert_eq!(grpc_answer(&ok(key, value)), Err(AnswerError::Header(key.to_owned())), "{key:?}");
    }
    // A message without any field is status 0.
    assert_eq!(grpc_answer(&[]), Ok(Answer::Allow(Edits::default())));
}
