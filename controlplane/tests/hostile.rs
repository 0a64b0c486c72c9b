//! Clients that should not have the control plane, or not for themselves, and proxies that are served all the same.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use support::manifests::{NAMESPACE, PODS};
use support::{DEADLINE, Running};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections that one address may keep without a token.
const PER_ADDRESS: usize = 32;

async fn dial(source: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

fn connector(running: &Running) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_file(running.path("ca/root-cert.pem")).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// A connection that is silent after its handshake; none when the control plane has closed it.
async fn silent(connector: TlsConnector, source: &'static str, to: SocketAddr) -> Option<TlsStream<TcpStream>> {
    let tcp = dial(source, to).await;
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()
}

#[tokio::test]
async fn silent_connections_of_a_neighbour_do_not_keep_a_proxy_from_being_served() {
    let running = Running::start(&[("ns.yaml", NAMESPACE), ("pods.yaml", PODS)]).await;
    let (address, connector) = (running.address(), connector(&running));
    let mut attempts = JoinSet::new();
    for _ in 0..300 {
        attempts.spawn(silent(connector.clone(), "127.0.0.2", address));
    }
    // and as many that do not even begin a handshake
    let mut mute = Vec::new();
    for _ in 0..300 {
        mute.push(dial("127.0.0.3", address).await);
    }
    let open: Vec<_> =
        tokio::time::timeout(DEADLINE, attempts.join_all()).await.unwrap().into_iter().flatten().collect();
    assert!(!open.is_empty() && open.len() <= PER_ADDRESS, "{} silent connections", open.len());

    let mut proxy = running.subscribe("token of n1", None);
    proxy.holds(|seen| seen.addresses.len() == 2).await;
    running.certificate("token of n1", "spiffe://cluster.local/ns/app/sa/web").await.unwrap();
}

#[tokio::test]
async fn a_connection_without_a_good_token_is_closed_in_time() {
    let running = Running::start(&[("ns.yaml", NAMESPACE)]).await;
    let mut connection = silent(connector(&running), "127.0.0.1", running.address()).await.unwrap();

    // the server's first frames, then its end
    let mut received = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10) + DEADLINE, connection.read_to_end(&mut received)).await;

    assert!(ended.is_ok(), "still open");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_revoked() {
    let running = Running::start(&[("ns.yaml", NAMESPACE), ("pods.yaml", PODS)]).await;
    let mut proxy = running.fake("token of n1").await;
    proxy.ask(&HashMap::new()).await;
    proxy.hear(&["Kubernetes//Pod/app/web"]).await;

    running.revoke("n1");

    // tokens are checked every 15 s
    let end = proxy.ended(Duration::from_secs(15) + DEADLINE).await;
    assert_eq!(end.unwrap_err().code(), tonic::Code::Unauthenticated);
    running.subscribe("token of n2", None).holds(|seen| seen.addresses.len() == 2).await;
}
