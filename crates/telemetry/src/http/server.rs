//! Serves one router on one socket until the drain.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::drain::Watch;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixSocket, UnixStream},
    time::timeout,
};
use tokio_io_timeout::TimeoutWriter;
use tracing::{debug, warn};

use super::{Request, Response, Router, connections::Connections, text};

/// Time that a client may take to send a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a client may take to read the next part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of a request.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Connections to a unix socket that may wait.
const BACKLOG: u32 = 128;
/// Pause after a failed accept (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A bound socket that does not serve yet. Dropping it closes the socket and removes a unix socket's file.
pub struct Server {
    socket: Socket,
    /// Only peers whose uid is 0 are heard.
    root_only: bool,
}

impl Server {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::Tcp(TcpListener::bind(address).await?), root_only: false })
    }

    /// Takes a listener that was bound elsewhere.
    #[must_use]
    pub const fn from_listener(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), root_only: false }
    }

    /// Binds a unix socket for this user only (0600). A socket left over by an ended program is replaced.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn unix(path: &Path) -> io::Result<Self> {
        // The file of a socket outlives its program, and binding to it would fail ever after.
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Before it listens: nobody else can have connected.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { socket: Socket::Unix(listener, path.to_owned()), root_only: false })
    }

    /// Closes connections to a unix socket whose peer is not root, whatever the file's mode has become.
    #[must_use]
    pub fn for_root_only(mut self) -> Self {
        self.root_only = true;
        self
    }

    /// Address of a TCP server.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// Answers requests with `router`. Continues during the drain, so that its progress can be seen, and returns at its
    /// deadline. Dropping the future closes all connections. No more than 64 are open: beyond them, the client with most of
    /// them loses its oldest one.
    pub async fn serve(self, router: Arc<Router>, mut drain: Watch) {
        let mut connections = Connections::default();
        loop {
            tokio::select! {
                // Cancel safe: both accepts are.
                accepted = self.accept() => match accepted {
                    // A task for each: a client that reads slowly must not keep the kubelet's probe waiting.
                    Ok(Some((stream, client))) => connections.serve(client, serve_connection(stream, router.clone())),
                    // A peer that may not ask: closed already.
                    Ok(None) => {}
                    Err(error) => {
                        warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(()) = connections.ended() => {}
                () = drain.expired() => return,
            }
        }
    }

    /// `None`: the peer may not ask, and its connection is closed.
    async fn accept(&self) -> io::Result<Option<(Box<dyn Stream>, Option<IpAddr>)>> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                Ok(Some((Box::new(stream), Some(client.ip()))))
            }
            Socket::Unix(listener, _) => {
                let stream = listener.accept().await?.0;
                // Checked for each connection and not once: the socket's file may lie where others can change its mode.
                if self.root_only && !is_root(&stream) {
                    return Ok(None);
                }
                Ok(Some((Box::new(stream), None)))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            // Already gone is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_root(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 => true,
        Ok(peer) => {
            warn!(uid = peer.uid(), "connection refused: the peer is not root");
            false
        }
        Err(error) => {
            warn!(%error, "connection refused: failed to read the peer's credentials");
            false
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn serve_connection(stream: Box<dyn Stream>, router: Arc<Router>) {
    let service = service_fn(move |request: ::http::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<Response, Infallible>(answer(&router, request).await) }
    });
    // A client that asks again and again and reads nothing would hold its connection for ever.
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let stream = Box::pin(stream);
    // HTTP/1.1 only: curl, browsers, Prometheus and the kubelet speak it, and it needs no state for each stream.
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        // Not a warning: each scanner and each client that is killed ends its connection so.
        debug!(%error, "connection ended");
    }
}

async fn answer(router: &Router, request: ::http::Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => router.answer(Request::from_parts(head, body.to_bytes())).await,
        // `Limited` gives one error type for both cases; to a client that broke off nothing arrives anyway.
        Ok(Err(_)) => text(413, Bytes::from_static(b"the body is too long, or broke off\n")),
        Err(_) => text(408, Bytes::from_static(b"the body did not arrive in time\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const GET: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    fn router() -> Arc<Router> {
        Arc::new(Router::new().get("/x", |_| async { text(200, "here\n") }))
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn one_router_serves_tcp_and_unix_sockets() {
        let (trigger, drain) = runtime::drain::channel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let tcp = Server::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = Server::unix(&path).unwrap();
        let tasks = [tokio::spawn(tcp.serve(router(), drain.clone())), tokio::spawn(unix.serve(router(), drain))];

        let over_tcp = ask(tokio::net::TcpStream::connect(address).await.unwrap()).await;
        let over_unix = ask(UnixStream::connect(&path).await.unwrap()).await;

        assert!(over_tcp.starts_with("HTTP/1.1 200 OK\r\n") && over_tcp.ends_with("here\n"), "{over_tcp}");
        assert!(over_unix.ends_with("here\n"));
        trigger.start(Duration::ZERO);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_over_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());

        let _server = Server::unix(&path).unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_half_a_body_is_answered_in_time() {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();

        let serving = tokio::spawn(serve_connection(Box::new(server), router()));
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();

        assert_eq!(&head, b"HTTP/1.1 408");
        drop(client);
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_no_answer_is_cut_off() {
        let (mut client, server) = tokio::io::duplex(256);
        let router = Arc::new(Router::new().get("/x", |_| async { text(200, "much\n".repeat(1000)) }));

        let serving = tokio::spawn(serve_connection(Box::new(server), router));
        client.write_all(GET).await.unwrap();

        serving.await.unwrap();
        // The rest of the answer does not come.
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.len() <= 256, "{} bytes", answer.len());
    }

    #[tokio::test]
    async fn many_silent_connections_of_one_client_do_not_keep_another_from_an_answer() {
        let (trigger, drain) = runtime::drain::channel();
        let server = Server::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr().unwrap();
        let task = tokio::spawn(server.serve(router(), drain));

        let mut silent = Vec::new();
        for _ in 0..crate::http::connections::PLACES * 2 {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        // The first ones were closed for the others.
        assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
        let answer = ask(tokio::net::TcpStream::connect(address).await.unwrap()).await;

        assert!(answer.ends_with("here\n"), "{answer}");
        trigger.start(Duration::ZERO);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_for_root_answers_root_only() {
        let (trigger, drain) = runtime::drain::channel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.sock");
        let server = Server::unix(&path).unwrap().for_root_only();
        let task = tokio::spawn(server.serve(router(), drain));

        let mut stream = UnixStream::connect(&path).await.unwrap();
        let own = stream.peer_cred().unwrap().uid();
        let mut answer = String::new();
        // An error: the connection was closed before the request was written.
        let _ = stream.write_all(GET).await;
        let _ = stream.read_to_string(&mut answer).await;

        assert_eq!(answer.starts_with("HTTP/1.1 200"), own == 0, "{answer}");
        trigger.start(Duration::ZERO);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_head_is_cut_off() {
        let (client, server) = tokio::io::duplex(64);
        let (mut reader, mut writer) = tokio::io::split(client);
        writer.write_all(b"GET /x HT").await.unwrap();

        let serving = tokio::spawn(serve_connection(Box::new(server), router()));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();

        serving.await.unwrap();
    }
}
