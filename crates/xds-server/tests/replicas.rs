//! A replica that ends: its clients go on at another one, and miss nothing.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Raw, Seen, ask, caller, client, policy, run, soon, upsert};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use runtime::drain;
use tls::control_plane::Token;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use xds_client::Interest;
use xds_server::{Cache, Options};

/// A server whose streams end over `spread`.
struct Replica {
    address: SocketAddr,
    cache: Cache,
    drain: drain::Trigger,
}

impl Replica {
    async fn start(spread: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, watch) = drain::channel();
        let cache = Cache::new();
        cache.apply(POLICY, vec![policy("p", "1")]);
        cache.apply(ADDRESS, vec![upsert("a", "1")]);
        cache.mark_synced();
        let options = Options { spread, ..Options::new(Arc::new(drop), watch.clone()) };
        let service = xds_server::service(cache.clone(), options);
        let identify = |mut request: tonic::Request<()>| {
            request.extensions_mut().insert(caller());
            Ok(request)
        };
        let layer = tonic::service::InterceptorLayer::new(identify);
        let server = Server::builder().layer(layer).add_service(service);
        let mut watch = watch;
        // As the control plane ends: the connection is told (GOAWAY), streams that are open go on.
        let ends = async move {
            watch.started().await;
        };
        tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), ends));
        Self { address, cache, drain }
    }
}

/// A Service of which one endpoint is ready: new connections go to the address that was sent last.
async fn service(mut ready: watch::Receiver<SocketAddr>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let address = *ready.borrow_and_update();
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(address).await else { return };
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_client_goes_on_at_another_replica_and_misses_nothing() {
    let (first, second) = (Replica::start(Duration::ZERO).await, Replica::start(Duration::ZERO).await);
    let (ready, endpoints) = watch::channel(first.address);
    let seen = Seen::new();
    let _running = run(client(service(endpoints).await, Token::None, &seen, Interest::All));
    seen.holds(&[("a", "1"), ("p", "1")]).await;

    // Readiness first, then the end of streams, while the mesh changes.
    ready.send(second.address).unwrap();
    for version in 2..40 {
        for replica in [&first, &second] {
            replica.cache.apply(ADDRESS, vec![upsert("a", &version.to_string())]);
        }
        if version == 20 {
            first.drain.start(Duration::from_secs(5));
        }
        tokio::task::yield_now().await;
    }

    // Whatever the first one still sent, the rest comes from the second.
    soon(async {
        while first.cache.connections() > 0 || second.cache.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.cache.apply(ADDRESS, vec![upsert("a", "40")]);
    seen.holds(&[("a", "40"), ("p", "1")]).await;
    let state = seen.state();
    assert!(!state.order.iter().any(|name| name.starts_with('-')), "nothing was removed: {:?}", state.order);
    assert_eq!(state.order.iter().filter(|name| *name == "p").count(), 1, "what it held was not sent again");
}

#[tokio::test]
async fn streams_are_served_until_they_end() {
    let replica = Replica::start(Duration::from_secs(3600)).await;
    let mut streams: Vec<Raw> = Vec::new();
    for _ in 0..4 {
        let mut raw = common::raw(replica.address).await.unwrap();
        raw.send(ask(POLICY)).await;
        raw.ack(POLICY).await;
        streams.push(raw);
    }

    replica.drain.start(Duration::from_secs(3600));
    replica.cache.apply(POLICY, vec![policy("q", "1")]);

    for raw in &mut streams {
        assert_eq!(raw.hear().await.resources, ["q@1"]);
    }
}
