//! A node proxy of endpoints: it takes tunnels on port 15008 of an address of its own, and connects to a server.

use super::{identity, own_address, root};
use bytes::Bytes;
use hbone::{Settings, StreamIo};
use http::{HeaderMap, StatusCode};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// A node proxy that serves one workload.
#[derive(Clone)]
pub struct NodeProxy {
    pub ip: IpAddr,
    /// Authorities of the CONNECTs that it got.
    pub connects: Rc<RefCell<Vec<String>>>,
    /// Identities of the clients of its tunnels.
    pub clients: Rc<RefCell<Vec<String>>>,
    pub tunnels: Rc<Cell<usize>>,
}

impl NodeProxy {
    /// For the workload `account`, whose server is at `server`; a closed port is answered with 503, as node proxies do.
    pub async fn start(account: &'static str, server: SocketAddr, settings: Settings) -> Self {
        let ip = own_address();
        let listener = TcpListener::bind(SocketAddr::new(ip, 15008)).await.unwrap();
        let proxy = Self { ip, connects: Rc::default(), clients: Rc::default(), tunnels: Rc::default() };
        let config = tls::server_config(&root().certificate(&identity(account)).unwrap()).unwrap();
        let this = proxy.clone();
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (this, config, settings) = (this.clone(), config.clone(), settings.clone());
                spawn_local(async move { this.tunnel(socket, config, server, settings).await });
            }
        });
        proxy
    }

    async fn tunnel(
        &self,
        mut socket: TcpStream,
        config: std::sync::Arc<rustls::ServerConfig>,
        server: SocketAddr,
        settings: Settings,
    ) {
        let Ok(hello) = tls::stream::client_hello(&mut socket).await else { return };
        let Ok((tls, leaf)) = tls::stream::accept_after(socket, hello, config, tls::peer_leaf).await else { return };
        self.tunnels.set(self.tunnels.get() + 1);
        self.clients.borrow_mut().extend(leaf.and_then(|leaf| leaf.identity().map(ToString::to_string)));
        let Ok(mut tunnel) = hbone::Server::handshake(tls, &settings).await else { return };
        while let Ok(Some(request)) = tunnel.accept().await {
            self.connects.borrow_mut().push(request.authority().to_owned());
            spawn_local(async move {
                let Ok(mut app) = TcpStream::connect(server).await else {
                    return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
                };
                let Some(stream) = request.accept(HeaderMap::new()) else { return };
                let mut stream = StreamIo::new(stream);
                let _ = copy_bidirectional(&mut stream, &mut app).await;
            });
        }
    }
}

/// Bytes that tell their place.
pub fn pattern(n: usize) -> Bytes {
    (0..n).map(|i| (i * 31 % 251) as u8).collect()
}
