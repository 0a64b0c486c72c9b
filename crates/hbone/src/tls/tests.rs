//! What peers send after the handshake, in order and out of it.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use std::task::Waker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

type Tls = TlsStream<DuplexStream>;

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    configs_for(false)
}

/// Configurations of a server that asks its clients for a certificate or not, and of a client without one.
fn configs_for(certificate_required: bool) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["0.0.0.0".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let server = if certificate_required {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
        server.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        server.with_no_client_auth()
    };
    let mut server = server.with_single_cert(vec![leaf.der().clone()], key).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

/// A client and a server, each with the other's tickets read.
async fn pair() -> (Tls, Tls) {
    let (server, client) = configs();
    let (near, far) = duplex(1 << 20);
    let (near, far) = tokio::join!(connect(near, client, |_| ()), accept(far, server, |_| ()));
    let (mut near, mut far) = (near.unwrap().0, far.unwrap().0);
    far.say(DATA, b"hello").await;
    near.read_exact(&mut [0; 5]).await.unwrap();
    (near, far)
}

impl Tls {
    /// Sends one record.
    async fn say(&mut self, content: u8, payload: &[u8]) {
        self.sealer.seal(content, &[IoSlice::new(payload)]).unwrap();
        self.flush().await.unwrap();
    }

    /// Sends a new key and asks for one.
    async fn ask_for_a_key(&mut self) {
        self.say(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 1]).await;
        let (sequence, secrets) = self.keys.next_to_send().unwrap();
        self.sealer.renew(sequence, &secrets).unwrap();
    }

    /// Reads what is there and is not data.
    fn read_nothing(&mut self) {
        let (mut room, cx) = ([0; 8], &mut Context::from_waker(Waker::noop()));
        assert!(Pin::new(self).poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
    }

    async fn expect(&mut self, data: &[u8]) {
        let mut got = vec![0; data.len()];
        self.read_exact(&mut got).await.unwrap();
        assert_eq!(got, data);
    }
}

#[tokio::test]
async fn many_requests_for_a_new_key_get_one_answer() {
    let (mut near, mut far) = pair().await;

    for _ in 0..CONTROL_IN_A_ROW {
        far.ask_for_a_key().await;
    }
    near.read_nothing();
    assert!(near.sealer.waiting().is_empty());
    near.flush().await.unwrap();
    far.read_nothing();

    assert_eq!(far.control, 1);
    near.write_all(b"answer").await.unwrap();
    near.flush().await.unwrap();
    far.expect(b"answer").await;
    far.say(DATA, b"and on").await;
    near.expect(b"and on").await;
}

#[tokio::test]
async fn a_peer_that_only_sends_records_without_data_is_left() {
    let (mut near, mut far) = pair().await;

    for _ in 0..=CONTROL_IN_A_ROW {
        far.ask_for_a_key().await;
    }

    assert_eq!(near.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_client_without_the_certificate_that_is_asked_for_is_told_so() {
    let (server, client) = configs_for(true);
    let (near, far) = duplex(1 << 20);

    let (near, far) = tokio::join!(connect(near, client, |_| ()), accept(far, server, |_| ()));

    assert!(far.unwrap_err().to_string().contains("certificate"), "the server says why");
    let read = near.unwrap().0.read(&mut [0; 1]).await;
    assert!(read.is_err(), "the client got {read:?} instead of an alert");
}
