//! An API server in memory whose answers the test gives. Transport, paging and watches are tested in `kube-cluster`.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use kube_cluster::ApiServer;
use serde_json::Value;

/// An API server that answers method, path and body as `answer` does.
pub(crate) fn api_server<F>(answer: F) -> ApiServer
where
    F: Fn(&Method, &str, &[u8]) -> (StatusCode, Value) + Clone + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (status, value) = answer(&head.method, head.uri.path(), &body);
            let body = Full::new(Bytes::from(value.to_string()));
            Ok::<_, std::io::Error>(Response::builder().status(status).body(body).unwrap())
        }
    });
    ApiServer::with_client(kube::Client::new(service, "default"))
}
