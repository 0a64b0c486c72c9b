//! Requests through a waypoint: what servers and clients see, and what is reported.

use crate::common::client::{call, post, request};
use crate::common::server::Server;
use crate::common::{HOST, Lab, below, default_route, forward, rule, test, to};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use route::{Action, Cors, HeaderChanges, LocalAnswer, OriginMatch, Percent, Redirect, RedirectPort, Rule};
use std::time::Duration;

fn changes(set: &[(&'static str, &'static str)]) -> HeaderChanges {
    let set = set.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    HeaderChanges { set, ..HeaderChanges::default() }
}

#[test]
fn a_request_reaches_its_service_and_both_sides_see_what_envoy_shows() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;
        let mut asked = request(Method::GET, "/a/../plain?x=1");
        for (name, value) in [
            ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/a/sa/admin"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("user-agent", "curl/8"),
        ] {
            asked.headers_mut().insert(name, HeaderValue::from_static(value));
        }

        let answer = client.send(asked).await;

        assert_eq!((answer.status, answer.body.as_str(), answer.header("server")), (200, "one", "istio-envoy"));
        assert!(answer.header("x-envoy-upstream-service-time").parse::<u64>().is_ok(), "{answer:?}");
        let seen = server.last();
        assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.authority.as_str()), ("GET", "/plain?x=1", "web"));
        assert_eq!(seen.header("x-forwarded-proto"), "http");
        assert_eq!(seen.header("x-envoy-attempt-count"), "1");
        assert_eq!(seen.header("x-request-id").len(), 36);
        for absent in ["x-forwarded-client-cert", "x-hop", "connection", "x-forwarded-for"] {
            assert_eq!(seen.header(absent), "", "{absent}");
        }
        let line = lab.lines(1).await.remove(0);
        assert!(line.contains("\"GET /a/../plain?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 3 "), "{line}");
        assert!(line.contains(&format!(
            "\"curl/8\" \"{}\" \"web\" \"{}\" ",
            seen.header("x-request-id"),
            server.address
        )));
        assert!(line.contains(&format!(" inbound-vip|80|http|{HOST}; - 10.96.0.1:80 127.0.0.1:")), "{line}");
        assert!(line.ends_with(" - default"), "{line}");
    });
}

#[test]
fn connections_of_both_sides_are_used_again() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let mut sender = lab.client().await.http1().await;

        for _ in 0..20 {
            let response = sender.send_request(request(Method::GET, "/")).await.unwrap();
            assert_eq!(crate::common::client::answer(response).await.unwrap().body, "one");
            sender.ready().await.unwrap();
        }

        assert_eq!((server.count(), server.connections.get()), (20, 1));
    });
}

#[test]
fn http2_goes_through_with_trailers() {
    test(async {
        let lab = Lab::with(1, waypoint_config::AppProtocol::Undeclared, vec![default_route()]).await;
        let server = Server::with(|request, server| async move {
            let seen = crate::common::server::read(request).await;
            server.seen.borrow_mut().push(seen);
            let frames = [
                http_body::Frame::data(Bytes::from_static(b"\0\0\0\0\x02ok")),
                http_body::Frame::trailers([(HeaderName::from_static("grpc-status"), 5.into())].into_iter().collect()),
            ];
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames.map(Ok)));
            let response = Response::builder().header("content-type", "application/grpc");
            Ok(response.body(http_body_util::BodyExt::boxed_unsync(body)).unwrap())
        })
        .await;
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;

        let answer = client.send2(call("/shop.Cart/Add")).await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "5");
        let seen = server.last();
        assert_eq!((seen.authority.as_str(), seen.header("te")), ("web", "trailers"));
        let line = lab.lines(1).await.remove(0);
        assert!(line.contains("\"POST /shop.Cart/Add HTTP/2\" 200 - via_upstream"), "{line}");
    });
}

#[test]
fn answers_of_the_waypoint_have_envoys_texts_flags_and_details() {
    test(async {
        let nowhere = forward(|f| f.destinations = vec![to("empty")]);
        let missing = forward(|f| {
            let gone = route::Destination { host: "gone".into(), port: 80, subset: None };
            f.destinations = vec![route::Weighted::new(route::Target::Missing(gone), 1)];
        });
        let teapot = Rule { action: Action::Respond(LocalAnswer::new(418, "short and stout")), ..Rule::default() };
        let redirect = Redirect {
            status: 302,
            scheme: None,
            authority: Some("other".into()),
            port: RedirectPort::Keep,
            path: None,
        };
        let moved = Rule {
            action: Action::Redirect(redirect),
            response_headers: changes(&[("x-moved", "yes")]),
            ..Rule::default()
        };
        let routes = [("/empty", nowhere), ("/missing", missing), ("/teapot", rule(teapot)), ("/moved", rule(moved))];
        let lab = Lab::start(routes.map(|(prefix, route)| below(prefix, route)).into()).await;
        lab.add_service("empty", "10.96.0.2");
        let client = lab.client().await;

        for (count, (path, status, body, outcome)) in (1..).zip([
            ("/nothing", 404, "", "404 NR route_not_found"),
            ("/empty", 503, "no healthy upstream", "503 UH no_healthy_upstream"),
            ("/missing", 503, "", "503 NC cluster_not_found"),
            ("/teapot", 418, "short and stout", "418 - direct_response"),
            ("/moved/x?q=1", 302, "", "302 - direct_response"),
        ]) {
            let answer = client.get(path).await;
            assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
            assert_eq!(lab.outcome(count).await, outcome, "{path}");
            assert_eq!(answer.header("content-type"), if body.is_empty() { "" } else { "text/plain" }, "{path}");
            assert_eq!(answer.header("server"), "istio-envoy");
        }
        let moved = client.get("/moved/x?q=1").await;
        assert_eq!((moved.header("location"), moved.header("x-moved")), ("http://other/moved/x?q=1", "yes"));
    });
}

#[test]
fn a_grpc_client_gets_grpc_answers() {
    test(async {
        let lab = Lab::with(1, waypoint_config::AppProtocol::Http2, vec![default_route()]).await;
        let client = lab.client().await;

        let answer = client.send2(call("/shop.Cart/Add")).await;

        assert_eq!((answer.status, answer.header("grpc-status")), (200, "14"));
        assert_eq!(answer.header("grpc-message"), "no healthy upstream");
        assert_eq!(answer.header("content-type"), "application/grpc");
        assert_eq!(lab.outcome(1).await, "200 UH no_healthy_upstream");
    });
}

#[test]
fn faults_delay_and_abort() {
    test(async {
        let delay = route::Delay { duration: Duration::from_millis(30), share: Percent::ALL };
        let abort = route::Abort { status: route::AbortStatus::Http(555), share: Percent::ALL };
        let with = |fault| {
            let forward = forward(|_| {});
            rule(Rule { fault: Some(fault), ..Rule::clone(&forward.rule) })
        };
        let aborted = with(route::Fault { delay: None, abort: Some(abort) });
        let delayed = with(route::Fault { delay: Some(delay), abort: None });
        let lab = Lab::start(vec![below("/abort", aborted), delayed]).await;
        let server = Server::named("one").await;
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;

        let answer = client.get("/abort").await;
        assert_eq!((answer.status, answer.body.as_str()), (555, "fault filter abort"));
        assert_eq!(lab.outcome(1).await, "555 FI fault_filter_abort");

        let began = std::time::Instant::now();
        assert_eq!(client.get("/delay").await.status, 200);
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!(lab.outcome(2).await, "200 DI via_upstream");
    });
}

#[test]
fn cors_answers_preflights_and_marks_other_answers() {
    test(async {
        let cors = Cors {
            origins: vec![OriginMatch::Text(route::TextMatch::exact("https://ok.example"))],
            allow_methods: Some(HeaderValue::from_static("GET,PUT")),
            ..Cors::default()
        };
        let plain = forward(|_| {});
        let lab = Lab::start(vec![rule(Rule { cors: Some(cors), ..Rule::clone(&plain.rule) })]).await;
        let server = Server::named("one").await;
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;
        let with = |method: Method, more: &[(&'static str, &'static str)]| {
            let mut request = request(method, "/");
            for (name, value) in more {
                request.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            request
        };
        let origin = ("origin", "https://ok.example");

        let preflight = client.send(with(Method::OPTIONS, &[origin, ("access-control-request-method", "PUT")])).await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (200, "GET,PUT"));
        assert_eq!(server.count(), 0);
        assert_eq!(lab.outcome(1).await, "200 - cors_response");

        let answer = client.send(with(Method::GET, &[origin])).await;
        assert_eq!(answer.header("access-control-allow-origin"), "https://ok.example");
        assert_eq!(answer.body, "one");
    });
}

#[test]
fn headers_path_and_authority_are_changed_and_remembered() {
    test(async {
        let mut destination = to("web");
        destination.request_headers = changes(&[("x-set", "destination"), ("x-only", "destination")]);
        destination.response_headers = changes(&[("x-answer", "destination")]);
        let mut route = forward(|f| {
            f.destinations = vec![destination];
            f.path = Some(route::PathRewrite::Matched("/new".into()));
            f.authority = Some("other.example".into());
            f.timeout = Some(Duration::from_secs(5));
        });
        let changed = Rule {
            request_headers: changes(&[("x-set", "route")]),
            response_headers: changes(&[("x-answer", "route")]),
            ..Rule::clone(&route.rule)
        };
        route = rule(changed);
        let lab = Lab::start(vec![below("/old", route)]).await;
        let server = Server::named("one").await;
        lab.add_endpoint("web-1", "web", server.address);

        let answer = lab.client().await.get("/old/a?q=1").await;

        assert_eq!(answer.header("x-answer"), "route");
        let seen = server.last();
        assert_eq!((seen.target.as_str(), seen.authority.as_str()), ("/new/a?q=1", "other.example"));
        assert_eq!((seen.header("x-set"), seen.header("x-only")), ("route", "destination"));
        assert_eq!(seen.header("x-envoy-original-path"), "/old/a?q=1");
        assert_eq!(seen.header("x-envoy-original-host"), "web");
        assert_eq!(seen.header("x-envoy-expected-rq-timeout-ms"), "5000");
    });
}

#[test]
fn weights_divide_requests() {
    test(async {
        let lab = Lab::start(vec![forward(|f| {
            f.destinations = vec![crate::common::weighted("web", 9), crate::common::weighted("two", 1)]
        })])
        .await;
        lab.add_service("two", "10.96.0.2");
        let (one, two) = (Server::named("one").await, Server::named("two").await);
        lab.add_endpoint("web-1", "web", one.address);
        lab.add_endpoint("two-1", "two", two.address);
        let mut sender = lab.client().await.http1().await;

        for _ in 0..400 {
            sender.ready().await.unwrap();
            let response = sender.send_request(request(Method::GET, "/")).await.unwrap();
            crate::common::client::answer(response).await.unwrap();
        }

        assert_eq!(one.count() + two.count(), 400);
        // 40 are expected; 0.4^n tells that chance goes beyond these bounds once in a million runs.
        assert!((10..=80).contains(&two.count()), "{}", two.count());
    });
}

#[test]
fn a_mirror_gets_a_copy_and_its_answer_goes_nowhere() {
    test(async {
        let shadow = route::Destination { host: crate::common::host("shadow"), port: 80, subset: None };
        let mirror = route::Mirror { destination: shadow, share: Percent::ALL };
        let lab = Lab::start(vec![forward(|f| f.mirrors = vec![mirror])]).await;
        lab.add_service("shadow", "10.96.0.2");
        let server = Server::named("one").await;
        let copies = Server::answering(|_| Response::builder().status(503).body(Full::default()).unwrap()).await;
        lab.add_endpoint("web-1", "web", server.address);
        lab.add_endpoint("shadow-1", "shadow", copies.address);
        let body = crate::common::node_proxy::pattern(300_000);

        let answer = lab.client().await.send(post("/a", body.clone())).await;

        assert_eq!((answer.status, answer.body.as_str()), (200, "one"));
        while copies.count() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!((copies.last().body, copies.last().authority.as_str()), (body.clone(), "web"));
        assert_eq!(server.last().body, body);
        assert_eq!(lab.lines(1).await.len(), 1);
    });
}

#[test]
fn a_head_has_the_length_of_the_body_it_does_not_have() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("four").await);
        lab.add_endpoint("web-1", "web", server.address);
        let request = Request::builder().method(Method::HEAD).uri("/").header("host", "web").body(Full::default());

        let answer = lab.client().await.send(request.unwrap()).await;

        assert_eq!((answer.status, answer.header("content-length"), answer.body.as_str()), (200, "4", ""));
    });
}
