//! A certificate authority and a pair of peers for the tests of this crate.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tls::{TlsError, WorkloadCertificate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn id(text: &str) -> Identity {
    format!("spiffe://{text}").parse().unwrap()
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
    pub root_pem: String,
}

pub struct Leaf {
    pub sans: Vec<SanType>,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    pub from: SystemTime,
    pub to: SystemTime,
}

impl Leaf {
    pub fn of(identity: &str) -> Self {
        let now = SystemTime::now();
        Self {
            sans: vec![SanType::URI(format!("spiffe://{identity}").as_str().try_into().unwrap())],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            from: now - HOUR,
            to: now + HOUR,
        }
    }

    pub fn host(name: &str) -> Self {
        Self { sans: vec![SanType::DnsName(name.try_into().unwrap())], ..Self::of("td/ns/a/sa/b") }
    }
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "test");
        let root = params.self_signed(&key).unwrap();
        Self { root: root.der().clone(), root_pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn sign(&self, leaf: &Leaf) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = leaf.sans.clone();
        params.extended_key_usages = leaf.usages.clone();
        params.not_before = OffsetDateTime::from(leaf.from);
        params.not_after = OffsetDateTime::from(leaf.to);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (der, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    pub fn workload(&self, leaf: &Leaf) -> WorkloadCertificate {
        let (der, key) = self.sign(leaf);
        WorkloadCertificate::new(vec![der], &key, vec![self.root.clone()]).unwrap()
    }

    pub fn member(&self, identity: &str) -> WorkloadCertificate {
        self.workload(&Leaf::of(identity))
    }
}

/// View of both sides of one connection: the peer's identity, or the error.
#[derive(Debug)]
pub struct Meeting {
    pub server: Result<Option<Identity>, TlsError>,
    pub client: Result<Option<Identity>, TlsError>,
    pub suite: Option<rustls::CipherSuite>,
}

/// One connection over loopback with a byte from server to client, for a client learns only with the first
/// byte whether its certificate was accepted.
pub async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Meeting {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server).accept(socket).await.map_err(failure)?;
        stream.write_all(b"x").await.map_err(failure)?;
        stream.flush().await.map_err(failure)?;
        let peer = tls::peer_identity(stream.get_ref().1);
        // Reads until the client has closed: closing first could reset the byte away.
        drop(stream.read(&mut [0; 1]).await);
        Ok(peer)
    };
    let connecting = async {
        let socket = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(client);
        let mut stream = connector.connect(tls::server_name(), socket).await.map_err(failure)?;
        stream.read_exact(&mut [0; 1]).await.map_err(failure)?;
        let session = stream.get_ref().1;
        Ok((tls::peer_identity(session), session.negotiated_cipher_suite().map(|suite| suite.suite())))
    };
    let (server, client) = tokio::join!(accepting, connecting);
    let (client, suite) = match client {
        Ok((peer, suite)) => (Ok(peer), suite),
        Err(error) => (Err(error), None),
    };
    Meeting { server, client, suite }
}

pub fn failure(error: std::io::Error) -> TlsError {
    tls::diagnose(&error).unwrap_or_else(|| TlsError::Protocol(rustls::Error::General(error.to_string())))
}
