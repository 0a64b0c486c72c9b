//! The node's prober: a process in the kubelet's cgroup and the node's netns that makes the sockets of HTTP, gRPC and
//! TCP probes. One JSON line in is one try, one line out its result; when to try is the supervisor's business.

mod grpc;
mod https;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

/// Most bytes of an answer that are read for its status line.
const MAX_STATUS_LINE: usize = 512;

/// Results that wait to be written; a prober this far behind holds up its probes.
const RESULTS: usize = 256;

/// One try of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// Given back with the result.
    pub(crate) id: u64,
    /// Whom to probe.
    pub(crate) address: IpAddr,
    /// On which port.
    pub(crate) port: u16,
    /// Time limit.
    pub(crate) timeout: Duration,
    /// Question to ask.
    pub(crate) question: Question,
}

/// Question to a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Question {
    /// A connection is enough.
    Tcp,
    /// A request, whose answer's status is below 400.
    Http {
        get: HttpGet,
        /// True for TLS; any certificate is accepted.
        tls: bool,
    },
    /// `grpc.health.v1.Health/Check` of this service, without TLS.
    Grpc { service: String },
}

/// An HTTP request of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpGet {
    /// Path with query.
    pub(crate) path: String,
    /// Headers besides kubelet's own; a `Host` replaces the address.
    pub(crate) headers: Vec<(String, String)>,
}

/// Outcome of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Of which try.
    pub(crate) id: u64,
    /// Reason why it failed; `None` when it did not.
    pub(crate) failure: Option<String>,
}

/// Probes until standard input ends.
pub(super) fn run() -> Result<ExitCode, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|err| err.to_string())?;
    runtime.block_on(serve()).map_err(|err| err.to_string())?;
    Ok(ExitCode::SUCCESS)
}

async fn serve() -> io::Result<()> {
    let (results, mut done) = mpsc::channel::<Outcome>(RESULTS);
    let results = Arc::new(results);
    let writer = tokio::spawn(async move {
        let mut output = tokio::io::stdout();
        while let Some(outcome) = done.recv().await {
            let mut line = serde_json::to_vec(&outcome)?;
            line.push(b'\n');
            output.write_all(&line).await?;
            output.flush().await?;
        }
        io::Result::Ok(())
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let attempt: Attempt = serde_json::from_str(&line)?;
        let results = Arc::clone(&results);
        // A task for each try: a probe that waits for its timeout does not hold up the others of the node.
        tokio::spawn(async move {
            let failure = match timeout(attempt.timeout, probe(&attempt)).await {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(failure),
                Err(_) => Some(format!("no answer within {:?}", attempt.timeout)),
            };
            // The writer only goes when the supervisor does.
            let _ = results.send(Outcome { id: attempt.id, failure }).await;
        });
    }
    // The supervisor is gone, so results of tries that are under way have no reader.
    drop(results);
    writer.abort();
    Ok(())
}

async fn probe(attempt: &Attempt) -> Result<(), String> {
    let address = SocketAddr::new(attempt.address, attempt.port);
    let stream = TcpStream::connect(address).await.map_err(|err| format!("{address}: {err}"))?;
    match &attempt.question {
        Question::Tcp => Ok(()),
        Question::Http { get, tls: false } => http(get, address, stream).await,
        Question::Http { get, tls: true } => {
            let name = host(get).unwrap_or_else(|| address.ip().to_string());
            let stream = https::connect(stream, &name).await.map_err(|err| format!("{address}: {err}"))?;
            http(get, address, stream).await
        }
        Question::Grpc { service } => {
            grpc::check(stream, address, service).await.map_err(|err| format!("{address}: {err}"))
        }
    }
}

/// The name that a probe's own `Host` header gives, without a port.
fn host(get: &HttpGet) -> Option<String> {
    let (_, value) = get.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"))?;
    // An IPv6 literal has colons of its own, inside of brackets (RFC 3986, section 3.2.2).
    let name = match value.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((literal, _)) => literal,
        None => value.rsplit_once(':').map_or(value.as_str(), |(name, _)| name),
    };
    Some(name.to_owned())
}

async fn http(
    get: &HttpGet,
    address: SocketAddr,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), String> {
    stream.write_all(render(get, address).as_bytes()).await.map_err(|err| format!("{address}: {err}"))?;
    match read_status(&mut stream).await.map_err(|err| format!("{address}: {err}"))? {
        200..400 => Ok(()),
        other => Err(format!("HTTP probe failed with statuscode: {other}")),
    }
}

fn render(http: &HttpGet, address: SocketAddr) -> String {
    let path = if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) };
    let mut text = format!("GET {path} HTTP/1.1\r\n");
    if !http.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in &http.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    // Applications recognize probes by kubelet's user agent.
    text.push_str("User-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    text
}

async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut bytes = Vec::new();
    // Only the status decides, so the rest of the answer is not read, however long it is.
    while bytes.len() < MAX_STATUS_LINE && !bytes.contains(&b'\n') {
        if stream.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    parse_status(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1"))
}

fn parse_status(bytes: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(bytes.split(|byte| *byte == b'\n').next()?).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(parse_status(b"HTTP/1.1 204 No Content\r\nServer: x\r\n"), Some(204));
        assert_eq!(parse_status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(parse_status(b"SSH-2.0-OpenSSH\r\n"), None);
    }

    #[test]
    fn a_host_header_of_the_probe_replaces_the_address() {
        let address: SocketAddr = "[fd00::1]:80".parse().unwrap();
        let plain = HttpGet { path: "healthz".into(), headers: vec![] };
        let named = HttpGet { path: "/".into(), headers: vec![("Host".into(), "shop".into())] };

        assert!(render(&plain, address).starts_with("GET /healthz HTTP/1.1\r\nHost: [fd00::1]:80\r\n"));
        assert_eq!(render(&named, address).matches("Host:").count(), 1);
    }

    #[test]
    fn the_name_of_a_host_header_has_neither_port_nor_brackets() {
        let name = |value: &str| host(&HttpGet { path: "/".into(), headers: vec![("Host".into(), value.into())] });

        assert_eq!(name("shop").as_deref(), Some("shop"));
        assert_eq!(name("shop:8443").as_deref(), Some("shop"));
        assert_eq!(name("[fd00::1]").as_deref(), Some("fd00::1"));
        assert_eq!(name("[fd00::1]:8443").as_deref(), Some("fd00::1"));
    }

    #[tokio::test]
    async fn a_refused_connection_fails_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut attempt = Attempt {
            id: 1,
            address: address.ip(),
            port: address.port(),
            timeout: Duration::from_secs(1),
            question: Question::Tcp,
        };

        assert_eq!(probe(&attempt).await, Ok(()));
        drop(listener);
        attempt.id = 2;
        assert!(probe(&attempt).await.unwrap_err().starts_with(&address.to_string()));
    }
}
