//! Pages that a pod serves over HTTP, through the API server: as `kubectl port-forward` does, so that the pod may bind its port
//! on loopback alone.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::connect::ApiServer;

/// Longest time to the whole of a page.
const DEADLINE: Duration = Duration::from_secs(20);

/// Largest page. The dump of a proxy in a mesh of 10 000 pods has some 20 MiB.
const MAX_PAGE_BYTES: usize = 256 << 20;

/// Longest part of a refusal that is quoted.
const QUOTED: usize = 200;

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    pub namespace: String,
    pub pod: String,
    pub port: u16,
}

impl fmt::Display for PodPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, port } = self;
        write!(f, "port {port} of pod {namespace}/{pod}")
    }
}

/// A page that was not read. It says nothing about what the page would have shown.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The API server does not forward the port: the pod is gone, or the user may not `create pods/portforward`.
    #[error("failed to forward {at}")]
    Forward { at: PodPort, source: Box<kube::Error> },
    /// The kubelet cannot connect to the port.
    #[error("{at} does not answer: {reason}")]
    Port { at: PodPort, reason: String },
    #[error("no answer of {at} within {DEADLINE:?}")]
    Timeout { at: PodPort },
    #[error("{at}: GET {path} is answered with {status}: {text}")]
    Status { at: PodPort, path: String, status: StatusCode, text: String },
}

/// Returns the body of `GET <path>`.
///
/// # Errors
/// [`PageError`].
pub async fn pod_page(server: &ApiServer, at: &PodPort, path: &str) -> Result<Bytes, PageError> {
    let answer = timeout(DEADLINE, forwarded(server, at, path)).await;
    answer.unwrap_or_else(|_| Err(PageError::Timeout { at: at.clone() }))
}

async fn forwarded(server: &ApiServer, at: &PodPort, path: &str) -> Result<Bytes, PageError> {
    let pods = kube::Api::<Pod>::namespaced(server.client(), &at.namespace);
    let failed = |source| PageError::Forward { at: at.clone(), source: Box::new(source) };
    let mut forwarder = pods.portforward(&at.pod, &[at.port]).await.map_err(failed)?;
    let unreachable = |reason: String| PageError::Port { at: at.clone(), reason };
    let Some(stream) = forwarder.take_stream(at.port) else {
        return Err(unreachable("the API server has forwarded another port".to_owned()));
    };
    let refused = forwarder.take_error(at.port);
    let answer = match page(stream, at, path).await {
        Ok(answer) => answer,
        Err(error) => {
            // The kubelet's reason comes on a channel of its own; the connection itself just ends.
            forwarder.abort();
            let reason = match refused {
                Some(refused) => refused.await,
                None => None,
            };
            return Err(unreachable(reason.unwrap_or_else(|| error.to_string())));
        }
    };
    forwarder.abort();
    answer
}

/// The page over an open connection; the outer error is one of the connection.
async fn page<S>(stream: S, at: &PodPort, path: &str) -> Result<Result<Bytes, PageError>, Cause>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // hyper moves bytes only while somebody polls the connection, which is not the request itself.
    let driver = AbortOnDrop(tokio::spawn(connection));
    let request = Request::get(path).header(http::header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect().await?.to_bytes();
    drop(driver);
    if status == StatusCode::OK {
        return Ok(Ok(body));
    }
    let text = String::from_utf8_lossy(&body).trim().chars().take(QUOTED).collect();
    Ok(Err(PageError::Status { at: at.clone(), path: path.to_owned(), status, text }))
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

struct AbortOnDrop(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn at() -> PodPort {
        PodPort { namespace: "mesh".to_owned(), pod: "proxy".to_owned(), port: 15000 }
    }

    /// One answer to whatever is asked.
    fn answering(answer: &'static str) -> tokio::io::DuplexStream {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let _ = far.read(&mut [0; 4096]).await.unwrap();
            far.write_all(answer.as_bytes()).await.unwrap();
        });
        near
    }

    #[tokio::test]
    async fn the_body_of_an_answer_is_returned() {
        let stream = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");

        assert_eq!(page(stream, &at(), "/pods").await.unwrap().unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_refusal_names_the_pod_and_quotes_the_answer() {
        let stream = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno");

        let error = page(stream, &at(), "/pods").await.unwrap().unwrap_err().to_string();

        assert_eq!(error, "port 15000 of pod mesh/proxy: GET /pods is answered with 404 Not Found: no");
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_is_an_error_of_the_connection() {
        let (near, far) = tokio::io::duplex(4096);
        drop(far);

        assert!(page(near, &at(), "/pods").await.is_err());
    }
}
