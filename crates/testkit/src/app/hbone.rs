//! An HBONE peer that shows any certificate, or none, and believes every other one: it tells how the mesh treats it.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use lab::AnyCertificate;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{HboneClientArgs, HboneServerArgs};
use crate::any_client_certificate::AnyClientCertificate;

/// Time limit of a dial. The mesh's own limit of a handshake is 10 s.
const DEADLINE: Duration = Duration::from_secs(30);

/// Point that a dial has reached; the word a test asserts.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Tcp,
    Tls,
    Http,
    Answered,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Answered => "answered",
        }
    }
}

pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn load(cert: &Path, key: &Path) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let invalid = |err| io::Error::new(io::ErrorKind::InvalidData, format!("{err:?}"));
    let chain = CertificateDer::pem_slice_iter(&fs::read(cert)?).collect::<Result<_, _>>().map_err(invalid)?;
    let key = PrivateKeyDer::from_pem_slice(&fs::read(key)?).map_err(invalid)?;
    Ok((chain, key))
}

fn tls_error(err: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(err)
}

/// The TLS alert with which the peer ended a handshake, as rustls names it.
fn alert(err: &io::Error) -> Option<String> {
    match err.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(format!("{alert:?}")),
        _ => None,
    }
}

/// Dials, sends one request, prints `{local, stage, status, body, peer, alert, error}`; the exit code.
pub fn client(args: &HboneClientArgs) -> i32 {
    // Longer than the mesh's limits, so that its own error is seen first.
    let dial = async { timeout(DEADLINE, dial(args)).await? };
    let report = runtime().and_then(|runtime| runtime.block_on(dial));
    let report = report.unwrap_or_else(|err| json!({ "stage": "start", "error": err.to_string() }));
    println!("{report}");
    i32::from(report["status"] != 200)
}

async fn dial(args: &HboneClientArgs) -> io::Result<Value> {
    let config = client_config(args.cert.as_deref(), args.key.as_deref())?;
    let tcp = match TcpStream::connect(args.target).await {
        Ok(tcp) => tcp,
        Err(err) => return Ok(json!({ "stage": Stage::Tcp.name(), "error": err.to_string() })),
    };
    let mut report = json!({ "local": tcp.local_addr()?.to_string() });
    // Not compared with anything: `AnyCertificate` accepts each certificate.
    let name = ServerName::IpAddress(args.target.ip().into());
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let accepted = async {
        let mut tls = BufReader::new(shaken.await?);
        // In TLS 1.3 a client is done before the server has judged its certificate. A server that lets it in speaks
        // HTTP/2 first; until it has, nothing is sent that could be in the way of its alert.
        match tls.fill_buf().await? {
            [] => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(tls),
        }
    };
    let tls = match accepted.await {
        Ok(tls) => tls,
        Err(err) => {
            report["stage"] = json!(Stage::Tls.name());
            report["alert"] = json!(alert(&err));
            report["error"] = json!(err.to_string());
            return Ok(report);
        }
    };
    report["peer"] = json!(tls.get_ref().get_ref().1.peer_certificates().and_then(|c| crate::pki::uri_san(c.first()?)));
    match exchange(args, tls).await {
        Ok((status, body)) => {
            report["stage"] = json!(Stage::Answered.name());
            report["status"] = json!(status);
            report["body"] = json!(body);
        }
        Err(err) => {
            report["stage"] = json!(Stage::Http.name());
            report["error"] = json!(chain(&err));
        }
    }
    Ok(report)
}

/// Connects to an HBONE port and shows a certificate; the peer may be anybody.
pub(super) async fn handshake(
    target: SocketAddr,
    cert: Option<&Path>,
    key: Option<&Path>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(client_config(cert, key)?));
    let tcp = TcpStream::connect(target).await?;
    connector.connect(ServerName::IpAddress(target.ip().into()), tcp).await
}

fn client_config(cert: Option<&Path>, key: Option<&Path>) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)));
    let mut config = match (cert, key) {
        (Some(cert), Some(key)) => {
            let (chain, key) = load(cert, key)?;
            builder.with_client_auth_cert(chain, key).map_err(tls_error)?
        }
        // Both or none: clap's `requires` sees to the first, and a key alone proves nothing.
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // The mesh names no host in its handshakes; this peer must not differ in more than its certificate.
    config.enable_sni = false;
    Ok(config)
}

async fn exchange(
    args: &HboneClientArgs,
    tls: BufReader<tokio_rustls::client::TlsStream<TcpStream>>,
) -> Result<(u16, String), h2::Error> {
    let (client, connection) = h2::client::handshake(tls).await?;
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await?;
    let method = args.method.as_deref().map_or(Method::CONNECT, |m| m.parse().unwrap_or(Method::GET));
    // RFC 9113, section 8.5: a CONNECT has an authority and neither scheme nor path.
    let uri = if method == Method::CONNECT { args.authority.clone() } else { format!("http://{}/", args.authority) };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse::<Uri>().unwrap_or_default();
    let (response, mut send) = client.send_request(request, false)?;
    let response = match response.await {
        Ok(response) => response,
        // the driver knows the reason when the connection broke
        Err(err) => return Err(driver.await.ok().and_then(Result::err).unwrap_or(err)),
    };
    let status = response.status().as_u16();
    let mut text = String::new();
    if status == 200 {
        send.send_data(Bytes::from(args.send.clone()), true)?;
        let mut body = response.into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
    Ok((status, text))
}

/// The error and its causes in one line.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Accepts every peer, answers CONNECT with 200 and echoes; prints a line per event.
pub fn server(args: &HboneServerArgs) -> i32 {
    match runtime().and_then(|runtime| runtime.block_on(serve(args))) {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("{err}");
            1
        }
    }
}

async fn serve(args: &HboneServerArgs) -> io::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain_der, key) = load(&args.cert, &args.key)?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(Arc::new(AnyClientCertificate::new(provider)))
        .with_single_cert(chain_der, key)
        .map_err(tls_error)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::from_std({
        let listener = super::server::listen(args.listen)?;
        listener.set_nonblocking(true)?;
        listener
    })?;
    println!("{}", json!({ "event": "listening" }));
    loop {
        let (tcp, from) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // In the task: a peer that does not finish its handshake must not hold up the next.
            let event = match acceptor.accept(tcp).await {
                Err(err) => {
                    let (from, alert) = (from.to_string(), alert(&err));
                    json!({ "event": "handshake failed", "from": from, "alert": alert, "error": chain(&err) })
                }
                Ok(tls) => tunnel(tls).await,
            };
            println!("{event}");
        });
    }
}

async fn tunnel(tls: tokio_rustls::server::TlsStream<TcpStream>) -> Value {
    let peer = tls.get_ref().1.peer_certificates().and_then(|c| crate::pki::uri_san(c.first()?));
    let mut requests = 0;
    let result = async {
        let mut server = h2::server::handshake(tls).await?;
        while let Some(request) = server.accept().await {
            let (request, mut respond) = request?;
            requests += 1;
            println!("{}", json!({ "event": "connect", "authority": request.uri().to_string(), "peer": peer }));
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::OK;
            let send = respond.send_response(response, false)?;
            // Streams of one tunnel do not wait for each other; the error of one is seen by its client.
            tokio::spawn(echo(request.into_body(), send));
        }
        Ok::<_, h2::Error>(())
    };
    let error = result.await.err().map(|err| chain(&err));
    json!({ "event": "tunnel closed", "peer": peer, "requests": requests, "error": error })
}

async fn echo(mut body: h2::RecvStream, mut send: h2::SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        send.send_data(chunk, false)?;
    }
    send.send_data(Bytes::new(), true)
}
