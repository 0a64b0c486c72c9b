use std::time::{Duration, SystemTime};

use ::http::{HeaderName, HeaderValue};
use model::StringMatch;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;

use super::super::Body;
use super::super::check::CheckError;
use super::super::message::CheckRequest;
use super::*;
use crate::http::testing::Client;
use crate::http::{BodyCheck, HttpProtocol, Request};

/// Keeps the question, and gives one answer after a time.
struct Peer {
    reply: Result<Reply, TransportError>,
    delay: Duration,
    asked: Mutex<Option<Question>>,
}

impl Transport for Peer {
    fn send<'a>(&'a self, _provider: &'a Provider, question: Question) -> Asking<'a> {
        *self.asked.lock() = Some(question);
        Box::pin(async {
            tokio::time::sleep(self.delay).await;
            self.reply.clone()
        })
    }
}

fn peer(reply: Result<Reply, TransportError>) -> Peer {
    Peer { reply, delay: Duration::ZERO, asked: Mutex::default() }
}

fn status(status: u16) -> Result<Reply, TransportError> {
    Ok(Reply::Http(Box::new(::http::Response::builder().status(status).body(Vec::new()).unwrap())))
}

fn provider(protocol: Protocol, fail_open: bool) -> Provider {
    Provider {
        name: "opa".into(),
        host: "opa.shop.svc.cluster.local".into(),
        port: 9000,
        timeout: Duration::from_secs(2),
        fail_open,
        status_on_error: 503,
        body: None,
        protocol,
    }
}

fn http_provider() -> Protocol {
    Protocol::Http(HttpProtocol {
        path_prefix: "/check".to_owned(),
        request_headers: vec![StringMatch::Exact("X-Wanted".into()), StringMatch::Prefix("x-all-".into())],
        added_headers: vec![("x-mesh".to_owned(), "strake".to_owned())],
        ..HttpProtocol::default()
    })
}

fn client() -> Client {
    Client { method: "POST", authority: "reviews:9080", ..Client::to("/a") }
        .header("authorization", b"Basic x")
        .header("x-wanted", b"1")
        .header("x-wanted", b"2")
        .header("x-all-b", b"3")
        .header("x-other", b"4")
        .header("x-binary", b"\xff")
        .header("content-length", b"5")
        .header("transfer-encoding", b"chunked")
        .header("x-envoy-auth-partial-body", b"forged")
        .header("x-request-id", b"id-1")
}

fn checked<'a>(request: &'a Request<'a>, body: Option<Body<'a>>) -> Checked<'a> {
    Checked {
        request,
        source_port: 4711,
        target: "/a?b=1",
        scheme: "http",
        protocol: "HTTP/1.1",
        own_identity: "spiffe://cluster.local/ns/shop/sa/waypoint",
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        body,
    }
}

#[tokio::test]
async fn an_http_provider_gets_the_request_without_what_it_does_not_need() {
    let client = client();
    let request = client.request();
    let body = Body { bytes: b"hello", is_partial: true };
    let peer = peer(status(200));

    let asked = ask(&peer, &provider(http_provider(), false), &checked(&request, Some(body))).await;

    assert_eq!(asked, Asked { answer: Answer::Allow(Edits::default()), failure: None });
    let Some(Question::Http(question)) = peer.asked.lock().take() else { panic!() };
    assert_eq!((question.method().as_str(), question.uri().to_string().as_str()), ("POST", "/check/a?b=1"));
    assert_eq!(question.body(), b"hello");
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<_> = question.headers().iter().map(line).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "authorization: Basic x",
            "content-length: 5",
            "host: reviews:9080",
            "x-all-b: 3",
            "x-envoy-auth-partial-body: true",
            "x-mesh: strake",
            "x-wanted: 1",
            "x-wanted: 2",
        ]
    );
}

#[tokio::test]
async fn a_grpc_provider_gets_client_destination_and_all_headers() {
    let client = client();
    let request = client.request();
    let peer = peer(Ok(Reply::Grpc(Vec::new())));
    let packed = BodyCheck { max_bytes: 5, allow_partial: true, pack_as_bytes: true };
    for (body_check, body, raw_body) in [(None, "hello", ""), (Some(packed), "", "hello")] {
        let provider = Provider { body: body_check, ..provider(Protocol::Grpc, false) };
        let bytes = Body { bytes: b"hello", is_partial: false };

        let asked = ask(&peer, &provider, &checked(&request, Some(bytes))).await;

        assert_eq!(asked.failure, None);
        let Some(Question::Grpc(message)) = peer.asked.lock().take() else { panic!() };
        let attributes = CheckRequest::decode(message.as_slice()).unwrap().attributes.unwrap();
        let (source, destination) = (attributes.source.unwrap(), attributes.destination.unwrap());
        assert_eq!(source.principal, "spiffe://cluster.local/ns/shop/sa/web");
        let address = source.address.unwrap().socket_address.unwrap();
        assert_eq!((address.address.as_str(), address.port_value), ("10.0.0.2", 4711));
        assert_eq!(destination.principal, "spiffe://cluster.local/ns/shop/sa/waypoint");
        let of = attributes.request.unwrap();
        assert_eq!(of.time.map(|time| (time.seconds, time.nanos)), Some((1, 500_000_000)));
        let http = of.http.unwrap();
        assert_eq!((http.id.as_str(), http.method.as_str(), http.path.as_str()), ("id-1", "POST", "/a?b=1"));
        assert_eq!((http.host.as_str(), http.scheme.as_str(), http.size), ("reviews:9080", "http", 5));
        assert_eq!((http.body.as_str(), http.raw_body.as_slice()), (body, raw_body.as_bytes()));
        for (name, value) in [
            ("x-wanted", "1,2"),
            ("x-other", "4"),
            ("x-binary", "\u{fffd}"),
            (":authority", "reviews:9080"),
            (":path", "/a?b=1"),
            ("x-envoy-auth-partial-body", "false"),
        ] {
            assert_eq!(http.headers.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_the_provider_fails_as_it_is_configured() {
    let client = client();
    let request = client.request();
    let down = TransportError("connection refused".to_owned());
    let slow = Peer { delay: Duration::from_secs(3), ..peer(status(200)) };
    for (peer, protocol, text) in [
        (peer(Err(down)), http_provider(), "connection refused"),
        (slow, http_provider(), "no answer within 2s"),
        (peer(status(500)), http_provider(), "the provider answered with status 500"),
        (peer(Ok(Reply::Grpc(vec![0xff]))), Protocol::Grpc, "the answer is not a CheckResponse"),
        (peer(status(200)), Protocol::Grpc, "the answer is of another protocol than the question"),
    ] {
        let closed = ask(&peer, &provider(protocol.clone(), false), &checked(&request, None)).await;
        let open = ask(&peer, &provider(protocol, true), &checked(&request, None)).await;

        assert_eq!(closed, Asked { answer: Answer::Deny(error_denial(503)), failure: Some(text.to_owned()) });
        assert_eq!(open, Asked { answer: Answer::Allow(Edits::default()), failure: Some(text.to_owned()) });
    }
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let client = Client::with_claims(json!({}));
    let (tcp, request) = (client.tcp(), client.request());
    let protocol = HttpProtocol { path_prefix: "no slash ".to_owned(), ..HttpProtocol::default() };

    assert_eq!(http_check(&HttpProtocol::default(), &checked(&tcp, None)).err(), Some(CheckError::NotHttp));
    assert_eq!(grpc_check(None, &checked(&tcp, None)).err(), Some(CheckError::NotHttp));
    assert_eq!(http_check(&protocol, &checked(&request, None)).err(), Some(CheckError::Invalid));
}
