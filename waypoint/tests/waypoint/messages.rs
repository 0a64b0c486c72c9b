//! Messages as bytes: malformed requests have one meaning, which is a refusal; and what HTTP/1.1 has besides requests with
//! bodies.

use crate::common::server::Server;
use crate::common::{Lab, default_route, test};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Reads until `end`.
async fn read_until(stream: &mut hbone::StreamIo, end: &str) -> String {
    let mut all = Vec::new();
    while !all.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => all.push(byte),
            Err(error) => panic!("{error} behind {:?}", String::from_utf8_lossy(&all)),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn malformed_requests_are_refused_and_reach_no_server() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let client = lab.client().await;
        let long = "a".repeat(70_000);
        let many: String = (0..120).map(|n| format!("x-{n}: 1\r\n")).collect();

        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.0\r\nhost: web\r\n\r\n".to_owned(), 426),
            ("NOT HTTP\r\n\r\n".to_owned(), 400),
            (format!("GET / HTTP/1.1\r\nhost: web\r\nx: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\nhost: web\r\n{many}\r\n"), 431),
            ("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: x\r\n\r\n".to_owned(), 400),
            ("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: +4\r\n\r\nabcd".to_owned(), 400),
            ("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde".to_owned(), 400),
            ("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), 400),
            ("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked, identity\r\n\r\n".to_owned(), 400),
            ("GET /a b HTTP/1.1\r\nhost: web\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost : web\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost: web\r\n folded: 1\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost: web\r\nx: a\0b\r\n\r\n".to_owned(), 400),
            ("GET /\u{e9} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n".to_owned(), 400),
            ("GET /%00 HTTP/1.1\r\nhost: web\r\n\r\n".to_owned(), 400),
            ("OPTIONS * HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n".to_owned(), 404),
            ("CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n".to_owned(), 404),
            ("GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n".to_owned(), 403),
        ] {
            let answer = client.raw(&text).await;
            let short = &text[..text.len().min(90)];
            // In the version of the request.
            let line = answer.strip_prefix("HTTP/1.").unwrap_or_default();
            assert!(line.get(1..).is_some_and(|l| l.starts_with(&format!(" {status} "))), "{short:?}: {answer:?}");
        }
        assert_eq!(server.count(), 0);
    });
}

#[test]
fn a_message_with_two_lengths_is_written_anew_and_ends_its_connection() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        for lengths in
            ["content-length: 50\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
        {
            let text = format!(
                "POST /one HTTP/1.1\r\nhost: web\r\n{lengths}\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                 GET /two HTTP/1.1\r\nhost: web\r\n\r\n"
            );

            let answers = lab.client().await.raw(&text).await;

            // Chunks decide, and what may be smuggled behind them is not read (RFC 9112, section 6.3).
            assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
            let seen = server.last();
            let sent = (seen.target.as_str(), seen.body.as_ref(), seen.header("content-length"));
            assert_eq!(sent, ("/one", &b"abc"[..], ""));
        }
        assert_eq!(server.count(), 2);
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;
        let head =
            b"POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();

        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"data").await.unwrap();

        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("one"), "{answer}");
        assert_eq!((server.last().body.as_ref(), server.last().header("expect")), (&b"data"[..], ""));
    });
}

#[test]
fn a_websocket_leaves_http_and_carries_bytes_both_ways() {
    test(async {
        let server = Server::raw(|mut socket, server| async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else { return };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
            let seen = crate::common::server::Seen {
                method: "GET".into(),
                target: String::new(),
                authority: String::new(),
                headers: http::HeaderMap::new(),
                body: head.into(),
            };
            server.seen.borrow_mut().push(seen);
            // The first message comes with the answer, in one packet.
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                           sec-websocket-accept: x\r\n\r\nhello";
            let _ = socket.write_all(answer).await;
            let (mut from, mut to) = socket.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        })
        .await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let mut stream = lab.client().await.open().await;
        let head = b"GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";
        stream.write_all(head).await.unwrap();

        let answer = read_until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(
            answer.contains("connection: upgrade\r\n") && answer.contains("sec-websocket-accept: x\r\n"),
            "{answer}"
        );
        assert_eq!(read_until(&mut stream, "hello").await, "hello");
        stream.write_all(b"ping").await.unwrap();
        assert_eq!(read_until(&mut stream, "ping").await, "ping");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);

        let line = lab.lines(1).await.remove(0);
        assert!(line.contains("\" 101 - via_upstream - \"-\" 4 9 "), "{line}");
    });
}

#[test]
fn a_server_that_does_not_want_a_websocket_answers_as_usual() {
    test(async {
        let (lab, server) = (Lab::start(vec![default_route()]).await, Server::named("one").await);
        lab.add_endpoint("web-1", "web", server.address);

        let text = "GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade, close\r\nupgrade: websocket\r\n\r\n";
        let answer = lab.client().await.raw(text).await;

        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("one"), "{answer}");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    test(async {
        let server = Server::answering(|seen| http::Response::new(seen.target.clone().into())).await;
        let lab = Lab::start(vec![default_route()]).await;
        lab.add_endpoint("web-1", "web", server.address);
        let text: String = (0..9).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: web\r\n\r\n")).collect();

        let answers =
            lab.client().await.raw(&(text + "GET /9 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")).await;

        let targets: Vec<_> = answers.split("\r\n\r\n").skip(1).map(|part| &part[..2]).collect();
        assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"]);
    });
}
