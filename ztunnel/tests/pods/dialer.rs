//! A peer beside the proxies of these tests: it opens connections and tunnels that no proxy captures.
#![allow(dead_code, unreachable_pub)]

use super::{PATIENCE, Pod, root};
use hbone::{Settings, Tunnel, client};
use identity::Identity;
use runtime::sys::Netns;
use runtime::sys::socket::set_mark;
use socket2::{Domain, Socket, Type};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tls::WorkloadCertificate;
use tokio::task::{LocalSet, spawn_local};

/// Runs `work` on a thread like a worker's.
pub fn local<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work)
}

/// A connection from `source` in a pod that no proxy beside the pod takes.
pub fn uncaptured(netns: &Netns, source: &str, to: SocketAddr) -> io::Result<Socket> {
    let socket = netns.run(|| Socket::new(Domain::IPV4, Type::STREAM, None))?;
    set_mark(&socket, 1337)?;
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

pub fn port(of: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(of.ip.parse::<IpAddr>().unwrap(), port)
}

/// The identity of a pod.
pub fn identity(pod: &Pod) -> Identity {
    format!("spiffe://cluster.local/ns/test/sa/sa-{}", pod.name).parse().unwrap()
}

pub fn tls(from: &Pod, to: &Pod) -> Arc<rustls::ClientConfig> {
    tls::client_config(&root().certificate(&identity(from)).unwrap(), &[identity(to)]).unwrap()
}

/// A way to open tunnels that needs no pod, so that a thread can own it.
pub struct Dialer {
    netns: Netns,
    source: String,
    to: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    pub settings: Settings,
}

impl Dialer {
    /// From `source` in `from` to the HBONE port of `to`, as `from`.
    pub fn new(from: &Pod, source: &str, to: &Pod) -> Self {
        Self {
            netns: from.netns.try_clone().unwrap(),
            source: source.to_owned(),
            to: port(to, 15008),
            tls: tls(from, to),
            settings: Settings::default(),
        }
    }

    /// The same as the holder of `certificate`, from the pod's own address.
    pub fn with_certificate(from: &Pod, to: &Pod, certificate: &WorkloadCertificate) -> Self {
        Self { tls: tls::client_config(certificate, &[identity(to)]).unwrap(), ..Self::new(from, from.ip, to) }
    }

    pub async fn tunnel(&self) -> io::Result<Tunnel> {
        let socket = uncaptured(&self.netns, &self.source, self.to)?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpStream::from_std(socket.into())?;
        let (tls, ()) = tls::stream::connect(socket, self.tls.clone(), |_| ()).await?;
        let (tunnel, driver) = client::start(tls, &self.settings);
        spawn_local(driver);
        Ok(tunnel)
    }
}
