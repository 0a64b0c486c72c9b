//! Streams of records with a peer made of rustls alone, and peers that agree on no protocol.

#[path = "common/configs.rs"]
#[allow(unreachable_pub)]
mod configs;

use configs::configs;
use rustls::ServerConfig;
use std::sync::Arc;
use tls::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

/// A peer made of rustls alone: echoes, and changes its key after every piece. With tickets, as other proxies send
/// them.
async fn rustls_echo(listener: TcpListener, config: Arc<ServerConfig>) {
    let (socket, _) = listener.accept().await.unwrap();
    let mut tls = tokio_rustls::TlsAcceptor::from(config).accept(socket).await.unwrap();
    let mut piece = vec![0; 30_000];
    while let Ok(n @ 1..) = tls.read(&mut piece).await {
        tls.get_mut().1.refresh_traffic_keys().unwrap();
        tls.write_all(&piece[..n]).await.unwrap();
        tls.flush().await.unwrap();
    }
    tls.shutdown().await.unwrap();
}

#[tokio::test]
async fn rustls_understands_our_records_and_we_its_tickets_and_new_keys() {
    let (server_config, client_config) = configs(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let peer = tokio::spawn(rustls_echo(listener, server_config));
    let socket = TcpStream::connect(to).await.unwrap();
    let (tls, ()) = stream::connect(socket, client_config, |_| ()).await.unwrap();
    let (mut read, mut write) = tokio::io::split(tls);
    let sent: Vec<u8> = (0..2_000_000).map(|i| (i * 31 % 251) as u8).collect();

    let writer = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(read.read_to_end(&mut got), writer);

    read.unwrap();
    peer.await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn a_peer_that_names_no_protocol_is_refused_by_either_side_that_names_one() {
    for (of_server, of_client) in [(true, false), (false, true), (true, true), (false, false)] {
        let (mut server, mut client) = configs(false);
        let h2 = || vec![b"h2".to_vec()];
        if of_server {
            Arc::make_mut(&mut server).alpn_protocols = h2();
        }
        if of_client {
            Arc::make_mut(&mut client).alpn_protocols = h2();
        }
        let (near, far) = duplex(1 << 20);

        let (accepted, connected) =
            tokio::join!(stream::accept(far, server, |_| ()), stream::connect(near, client, |_| ()));

        let (refused, other) = match (of_server, of_client) {
            (true, false) => (accepted, connected),
            (false, true) => (connected, accepted),
            _ => {
                assert!(accepted.is_ok() && connected.is_ok());
                continue;
            }
        };
        assert!(refused.is_err_and(|e| e.to_string().contains("ALPN")));
        // The other side gets the alert at the end of its handshake or after it.
        let alert = match other {
            Ok((mut tls, ())) => tls.read(&mut [0]).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(format!("{alert:?}").contains("NoApplicationProtocol"), "{alert:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_refused() {
    let (near, mut far) = duplex(1 << 20);
    far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();

    let refused = stream::accept(near, configs(false).0, |_| ()).await;

    assert!(refused.is_err());
}
