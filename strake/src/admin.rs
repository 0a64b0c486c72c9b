//! Admin pages of the programs of a mesh, over the unix socket in the run directory of each. One request, one answer, one
//! deadline.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use contract::admin::SOCKET_NAME;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use lab::Lab;
use tokio::{net::UnixStream, time::timeout};

/// A program that has not answered by then is treated as dead.
const DEADLINE: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Page of a node proxy with its configuration. Istio's.
pub(crate) const CONFIG_DUMP_PATH: &str = "/config_dump";

/// Socket of the control plane.
pub(crate) fn control(lab: &Lab) -> PathBuf {
    lab.run_dir().control().join(SOCKET_NAME)
}

/// Socket of a node's agent.
pub(crate) fn agent(lab: &Lab, node: &str) -> PathBuf {
    lab.run_dir().node(node).join("agent").join(SOCKET_NAME)
}

/// Socket of a node's proxy.
pub(crate) fn ztunnel(lab: &Lab, node: &str) -> PathBuf {
    lab.run_dir().node(node).join("ztunnel").join(SOCKET_NAME)
}

/// The body of `GET <path>`.
pub(crate) async fn get(socket: &Path, path: &str) -> Result<Bytes> {
    timeout(DEADLINE, ask(socket, path)).await.with_context(|| format!("no answer within {DEADLINE:?}"))?
}

async fn ask(socket: &Path, path: &str) -> Result<Bytes> {
    let stream = UnixStream::connect(socket).await.with_context(|| format!("cannot reach {}", socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // hyper moves bytes only while somebody polls the connection, which is not the request itself.
    let driver = tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|err| anyhow::anyhow!(err))?.to_bytes();
    driver.abort();
    if status != StatusCode::OK {
        bail!("GET {path} is answered with {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    /// A socket that gives one answer to whatever it is asked.
    fn answering(answer: &'static str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        (dir, path)
    }

    #[tokio::test]
    async fn the_body_of_an_answer_is_returned() {
        let (_dir, path) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");

        assert_eq!(get(&path, "/pods").await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_that_quotes_it() {
        let (_dir, path) = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nstarting");

        let err = get(&path, "/readyz").await.unwrap_err().to_string();

        assert_eq!(err, "GET /readyz is answered with 503 Service Unavailable: starting");
    }

    #[tokio::test]
    async fn a_missing_socket_is_named() {
        let err = get(Path::new("/nowhere/admin.sock"), "/pods").await.unwrap_err().to_string();

        assert_eq!(err, "cannot reach /nowhere/admin.sock");
    }
}
