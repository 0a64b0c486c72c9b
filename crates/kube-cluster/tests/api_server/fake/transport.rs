//! HTTP/1.1 in memory: a connection for each request.

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;

use super::Fake;
use super::answer;

/// Bytes that wait between client and server.
const BUFFER: usize = 16 * 1024;

pub(super) fn client(fake: Fake) -> kube::Client {
    let service = tower::util::service_fn(move |request: Request<Body>| send(fake.clone(), request));
    kube::Client::new(service, "default")
}

async fn send(fake: Fake, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
    // Here and not in the answer, which has a task of its own.
    assert!(!fake.panics(request.method()), "of this test");
    let (near, far) = tokio::io::duplex(BUFFER);
    let service = service_fn(move |request| {
        let fake = fake.clone();
        // An error ends the connection without an answer.
        async move { answer::to(&fake, request).await.ok_or("no answer") }
    });
    tokio::spawn(async move {
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
        // The client has gone, or a fault has cut the connection.
        let _: Result<(), hyper::Error> = served;
    });
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}
