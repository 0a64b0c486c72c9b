//! Key exchanges restricted to X25519MLKEM768. In a process of its own, of which it is a property.

mod common;

use std::sync::Arc;

use common::{Ca, id, meet};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, PeerIncompatible, RootCertStore, ServerConfig, ServerConnection,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tls::{KeyExchange, client_config, restrict, server_config, server_name};

const WEB: &str = "td/ns/shop/sa/web";
const DB: &str = "td/ns/shop/sa/db";

/// A handshake in memory: the group that both sides have agreed on, or the first error.
fn handshake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<NamedGroup, rustls::Error> {
    let mut client = ClientConnection::new(client, server_name())?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(server.negotiated_key_exchange_group().expect("agreed").name())
}

/// A peer that knows the classical groups only. Handshakes with it fail before anybody looks at a certificate.
fn classical() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let provider =
        Arc::new(CryptoProvider { kx_groups: vec![kx_group::X25519, kx_group::SECP256R1], ..default_provider() });
    let own = rcgen::generate_simple_self_signed(vec!["peer".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    (Arc::new(server), Arc::new(client))
}

#[tokio::test]
async fn only_the_hybrid_key_exchange_is_used_and_a_peer_without_it_is_refused() {
    restrict(KeyExchange::PostQuantum).unwrap();
    let ca = Ca::new();
    let (web, db) = (ca.member(WEB), ca.member(DB));
    let server = server_config(&web).unwrap();
    let client = client_config(&db, &[id(WEB)]).unwrap();

    assert_eq!(handshake(server.clone(), client.clone()).unwrap(), NamedGroup::X25519MLKEM768);
    let no_group = || Err(rustls::Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon));
    let (classical_server, classical_client) = classical();
    assert_eq!(handshake(server.clone(), classical_client), no_group());
    assert_eq!(handshake(classical_server, client.clone()), no_group());

    // Over sockets and the data path's own records, too.
    let meeting = meet(server, client).await;
    assert_eq!((meeting.server.unwrap(), meeting.client.unwrap()), (Some(id(DB)), Some(id(WEB))));
    assert!(restrict(KeyExchange::Default).is_err(), "connections are configured already");
}
