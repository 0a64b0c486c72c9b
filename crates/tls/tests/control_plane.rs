//! Connections to the control plane over loopback: whose certificate is accepted, and which roots count when.

mod common;

use common::{Ca, HOUR, Leaf};
use std::path::Path;
use std::time::SystemTime;
use tls::control_plane::{
    Acceptor, ConnectError, Connector, ControlStream, Limits, RootSource, ServingCertificate, Token,
};
use tokio::net::TcpListener;

/// A control plane at `localhost` that is there until the test ends; its port.
async fn serve(ca: &Ca, leaf: &Leaf) -> (Acceptor, u16) {
    let (der, key) = ca.sign(leaf);
    let acceptor = Acceptor::new(ServingCertificate::new(vec![der], &key).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut incoming = acceptor.clone().incoming(listener, Limits::with_descriptors(None));
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Some(stream) = incoming.recv().await {
            open.push(stream);
        }
    });
    (acceptor, port)
}

async fn connect(roots: RootSource, alternative: Option<&str>, port: u16) -> Result<ControlStream, ConnectError> {
    let connector = Connector::new(roots, alternative.map(str::to_owned));
    connector.connect(&format!("https://localhost:{port}").parse().unwrap()).await
}

fn inline(ca: &Ca) -> RootSource {
    RootSource::Inline(ca.root_pem.clone())
}

#[tokio::test]
async fn the_host_name_of_the_address_is_accepted() {
    let ca = Ca::new();
    let (_, port) = serve(&ca, &Leaf::host("localhost")).await;

    let stream = connect(inline(&ca), None, port).await.unwrap();

    let ControlStream::Tls(stream) = stream else { panic!("not TLS") };
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(tls::ALPN_H2));
}

#[tokio::test]
async fn another_host_name_is_accepted_only_as_the_alternative() {
    let ca = Ca::new();
    let (_, port) = serve(&ca, &Leaf::host("istiod.istio-system.svc")).await;

    let refused = connect(inline(&ca), None, port).await.unwrap_err();
    let wrong = connect(inline(&ca), Some("other.example"), port).await.unwrap_err();
    let accepted = connect(inline(&ca), Some("istiod.istio-system.svc"), port).await;

    assert_eq!(refused.code(), "bad_certificate");
    assert_eq!(wrong.code(), "bad_certificate");
    assert!(accepted.is_ok());
}

#[tokio::test]
async fn an_expired_or_foreign_control_plane_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let now = SystemTime::now();
    let (_, expired) = serve(&ca, &Leaf { from: now - 2 * HOUR, to: now - HOUR, ..Leaf::host("localhost") }).await;
    let (_, foreign) = serve(&other, &Leaf::host("localhost")).await;

    assert_eq!(connect(inline(&ca), None, expired).await.unwrap_err().code(), "certificate_expired");
    let code = connect(inline(&ca), None, foreign).await.unwrap_err().code();
    assert!(["unknown_issuer", "bad_certificate"].contains(&code), "{code}");
}

#[tokio::test]
async fn a_root_file_is_read_again_for_every_connection() {
    let (old, new) = (Ca::new(), Ca::new());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &old.root_pem).unwrap();
    let roots = RootSource::from_setting(file.path().to_str().unwrap());
    let (acceptor, port) = serve(&old, &Leaf::host("localhost")).await;
    assert!(connect(roots.clone(), None, port).await.is_ok());

    let (der, key) = new.sign(&Leaf::host("localhost"));
    acceptor.replace(ServingCertificate::new(vec![der], &key).unwrap());
    assert!(connect(roots.clone(), None, port).await.is_err());
    std::fs::write(file.path(), &new.root_pem).unwrap();

    assert!(connect(roots, None, port).await.is_ok());
}

#[tokio::test]
async fn roots_that_are_missing_or_nonsense_are_named() {
    let missing = connect(RootSource::from_setting("/nowhere/root.pem"), None, 1).await.unwrap_err();
    let empty = connect(RootSource::Inline(String::new()), None, 1).await.unwrap_err();
    let garbage = RootSource::Inline("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned());

    assert_eq!(missing.code(), "roots_unreadable");
    assert_eq!(empty.code(), "roots_empty");
    assert_eq!(connect(garbage, None, 1).await.unwrap_err().code(), "roots_malformed");
}

#[tokio::test]
async fn plain_addresses_get_plain_connections_and_closed_ports_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = Connector::new(RootSource::System, None);
    let address = format!("http://127.0.0.1:{port}").parse().unwrap();

    assert!(matches!(connector.connect(&address).await, Ok(ControlStream::Plain(_))));
    drop(listener);

    assert_eq!(connector.connect(&address).await.unwrap_err().code(), "control_plane_tcp");
}

#[test]
fn a_root_setting_is_a_path_the_system_or_a_text() {
    let file = tempfile::NamedTempFile::new().unwrap();

    assert_eq!(RootSource::from_setting(file.path().to_str().unwrap()), RootSource::Path(file.path().to_owned()));
    assert_eq!(RootSource::from_setting("SYSTEM"), RootSource::System);
    assert!(matches!(RootSource::from_setting("-----BEGIN CERTIFICATE-----"), RootSource::Inline(_)));
    let later = "/nowhere/yet.pem";
    assert_eq!(RootSource::from_setting(later), RootSource::Path(Path::new(later).to_owned()));
}

#[tokio::test]
async fn a_token_file_is_read_again_and_trimmed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let token = Token::from_setting(file.path().to_str().unwrap());

    assert_eq!(token.bearer().await.unwrap().unwrap(), "Bearer first");
    std::fs::write(file.path(), "second \n").unwrap();

    assert_eq!(token.bearer().await.unwrap().unwrap(), "Bearer second");
    assert_eq!(Token::from_setting("literal").bearer().await.unwrap().unwrap(), "Bearer literal");
    assert_eq!(Token::from_setting("").bearer().await.unwrap(), None);
    assert!(Token::from_setting("/nowhere/token").bearer().await.is_err());
    assert!(!format!("{:?}", Token::Literal("secret".to_owned())).contains("secret"));
}

#[tokio::test]
async fn while_a_token_file_is_written_or_gone_the_last_token_is_used() {
    let jwt = |subject: char| format!("eyJhbGciOiJIUzI1NiJ9.{}.{}", "abcd".repeat(20), subject.to_string().repeat(43));
    let file = tempfile::NamedTempFile::new().unwrap();
    let (old, new) = (jwt('o'), jwt('n'));
    let token = Token::from_setting(file.path().to_str().unwrap());
    assert!(token.bearer().await.is_err(), "there is no last one yet");
    std::fs::write(file.path(), &old).unwrap();
    let sent = async || token.bearer().await.unwrap().unwrap();
    assert_eq!(sent().await, format!("Bearer {old}"));

    for written in ["", "\n", "eyJ", &new[..40], &new[..new.len() - 20]] {
        std::fs::write(file.path(), written).unwrap();
        assert_eq!(sent().await, format!("Bearer {old}"), "{written:?}");
    }
    std::fs::write(file.path(), &new).unwrap();
    assert_eq!(sent().await, format!("Bearer {new}"));
    std::fs::remove_file(file.path()).unwrap();

    assert_eq!(sent().await, format!("Bearer {new}"));
}

#[tokio::test]
async fn a_client_that_leaves_before_its_first_byte_is_told_from_a_broken_handshake() {
    let ca = Ca::new();
    let (acceptor, _) = serve(&ca, &Leaf::host("localhost")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();

    for (sent, code) in [(&b""[..], "handshake_closed"), (&b"\x16"[..], "handshake_io")] {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, sent).await.unwrap();
        drop(client);
        let (socket, _) = listener.accept().await.unwrap();

        assert_eq!(acceptor.accept(socket).await.unwrap_err().code(), code);
    }
}
