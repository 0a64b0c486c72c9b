//! Makes the sockets of one pod, inside its network namespace. It neither accepts nor relays.
//!
//! A socket keeps the namespace it was made in for life, so only its making happens inside, on one
//! thread and without waiting.

use super::DnsOptions;
use super::spare_sockets::SpareSockets;
use runtime::sys::{Netns, route, socket};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Connections the kernel completes ahead of us. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// TCP keepalive of application sockets.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub retries: u32,
}

/// Options that every socket of a pod has.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// `SO_MARK`, by which redirection knows the proxy's sockets.
    pub mark: Option<u32>,
    /// `SO_REUSEPORT` on listeners: the next proxy may listen beside this one.
    pub reuse_port: bool,
    /// Dual-stack listeners.
    pub ipv6: bool,
    /// Preserve clients' addresses: always (an error if impossible), never, or when possible.
    pub preserve_source: Option<bool>,
    /// `None`: no TCP keepalive.
    pub keepalive: Option<Keepalive>,
    /// Set `TCP_USER_TIMEOUT` to the span of the keepalive.
    pub user_timeout: bool,
    /// `None`: the pod's DNS questions are not answered.
    pub dns: Option<DnsOptions>,
}

/// A pod cannot get a listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Mostly: the application has the port.
    #[error("failed to bind to address {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    /// `ENABLE_ORIG_SRC` asks for it, and the kernel refuses.
    #[error("cannot preserve source addresses: {0}")]
    Transparent(io::Error),
}

impl ListenError {
    /// Stable name for logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Transparent(_) => "transparent",
        }
    }
}

/// A listener, not blocking, not yet known to a runtime.
#[derive(Debug)]
pub struct Listening {
    pub listener: TcpListener,
    /// Dials on behalf of its clients may use their addresses.
    pub transparent: bool,
}

/// Kind of a socket.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Stream,
    Datagram,
}

#[derive(Debug, Clone)]
struct PodNetns {
    netns: Arc<Netns>,
    home: Arc<Netns>,
}

/// Makes the sockets of one pod in its namespace.
#[derive(Debug)]
pub struct Sockets {
    netns: Option<PodNetns>,
    options: Arc<SocketOptions>,
    /// For dials. Each holds the namespace as long as it is open.
    spare: SpareSockets,
    /// For questions to nameservers.
    spare_datagrams: SpareSockets,
}

impl Sockets {
    /// In the namespace of the process.
    pub fn in_own_netns(options: Arc<SocketOptions>) -> Self {
        Self::new(None, options)
    }

    /// In `netns`; `home` is the namespace of all threads of the process.
    pub fn in_netns(netns: Arc<Netns>, home: Arc<Netns>, options: Arc<SocketOptions>) -> Self {
        Self::new(Some(PodNetns { netns, home }), options)
    }

    fn new(netns: Option<PodNetns>, options: Arc<SocketOptions>) -> Self {
        Self { netns, options, spare: SpareSockets::default(), spare_datagrams: SpareSockets::default() }
    }

    /// Options of every socket of the pod.
    pub(crate) fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// Closes the sockets that were made in advance. Dials after it make their sockets one by one.
    pub fn close_spare(&self) {
        self.spare.close();
        self.spare_datagrams.close();
    }

    pub(super) fn enter<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.netns {
            Some(pod) => pod.netns.run_from(&pod.home, work),
            None => work(),
        }
    }

    /// Sockets, not blocking, made during one stay inside: one, and up to `count - 1` others.
    fn make(&self, domain: Domain, kind: Kind, count: usize) -> io::Result<(Socket, Vec<Socket>)> {
        let (kind, protocol) = match kind {
            Kind::Stream => (Type::STREAM, Protocol::TCP),
            Kind::Datagram => (Type::DGRAM, Protocol::UDP),
        };
        let one = || Socket::new(domain, kind.nonblocking(), Some(protocol));
        self.enter(|| Ok((one()?, (1..count).map_while(|_| one().ok()).collect())))
    }

    /// One socket. Entering the pod's namespace and leaving it again costs more than the socket: busy pods make several at
    /// once.
    fn take(&self, domain: Domain, kind: Kind) -> io::Result<Socket> {
        let spare = match kind {
            Kind::Stream => &self.spare,
            Kind::Datagram => &self.spare_datagrams,
        };
        match self.netns {
            Some(_) => spare.take(domain, |count| self.make(domain, kind, count)),
            None => self.make(domain, kind, 1).map(|(socket, _)| socket),
        }
    }

    /// A UDP socket, without the mark.
    pub(super) fn datagram(&self, domain: Domain) -> io::Result<Socket> {
        self.take(domain, Kind::Datagram)
    }

    /// A socket with the mark.
    pub(super) fn marked(&self, socket: Socket) -> io::Result<Socket> {
        if let Some(mark) = self.options.mark {
            socket::set_mark(&socket, mark)?;
        }
        Ok(socket)
    }

    /// Listens on the wildcard address, dual-stack when there is IPv6.
    ///
    /// `keepalive` is for application connections: tunnels have pings.
    pub fn listen(&self, port: u16, keepalive: bool) -> Result<Listening, ListenError> {
        let ip = if self.options.ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        self.listen_on(SocketAddr::new(ip, port), keepalive)
    }

    fn listen_on(&self, address: SocketAddr, keepalive: bool) -> Result<Listening, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let made = self.make(Domain::for_address(address), Kind::Stream, 1).and_then(|(socket, _)| self.marked(socket));
        let socket = match made {
            // A kernel without IPv6 (`ipv6.disable=1`): the pod has no such addresses either.
            Err(e) if address.is_ipv6() && e.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => {
                let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
                return self.listen_on(v4, keepalive);
            }
            made => made.map_err(failed)?,
        };
        if address.is_ipv6() {
            // The default of a namespace (`net.ipv6.bindv6only`) may be otherwise.
            socket.set_only_v6(false).map_err(failed)?;
        }
        let transparent = self.make_transparent(&socket)?;
        // With SO_REUSEPORT the other listener must have it too; a restart must not wait for TIME_WAIT either way.
        socket.set_reuse_address(true).map_err(failed)?;
        if self.options.reuse_port {
            socket.set_reuse_port(true).map_err(failed)?;
        }
        // Accepted sockets inherit these, as they do the mark.
        socket.set_tcp_nodelay(true).map_err(failed)?;
        if keepalive {
            self.set_keepalive(&socket).map_err(failed)?;
        }
        socket.bind(&address.into()).and_then(|()| socket.listen(BACKLOG)).map_err(failed)?;
        Ok(Listening { listener: socket.into(), transparent })
    }

    fn make_transparent(&self, socket: &Socket) -> Result<bool, ListenError> {
        match (self.options.preserve_source, socket::set_transparent(socket)) {
            (Some(false), _) => Ok(false),
            (Some(true) | None, Ok(())) => Ok(true),
            (None, Err(_)) => Ok(false),
            (Some(true), Err(e)) => Err(ListenError::Transparent(e)),
        }
    }

    fn set_keepalive(&self, socket: &Socket) -> io::Result<()> {
        let Some(k) = self.options.keepalive else { return Ok(()) };
        socket::set_keepalive(socket, k.idle, k.interval, k.retries)?;
        if self.options.user_timeout {
            socket::set_user_timeout(socket, k.idle + k.interval * k.retries)?;
        }
        Ok(())
    }

    /// Returns whether the kernel delivers `address` within this namespace. An error says neither.
    pub fn is_local(&self, address: IpAddr) -> io::Result<bool> {
        self.enter(|| route::is_local(address))
    }

    /// Connects, from `source` when given.
    ///
    /// A source that the kernel does not let us have is given up with a warning.
    pub async fn connect(&self, to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
        self.dial(to, source, true).await
    }

    /// Connects for a tunnel, which has pings and so needs no keepalive.
    pub async fn connect_tunnel(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.dial(to, None, false).await
    }

    async fn dial(&self, to: SocketAddr, source: Option<IpAddr>, keepalive: bool) -> io::Result<TcpStream> {
        let socket = self.marked(self.take(Domain::for_address(to), Kind::Stream)?)?;
        socket.set_tcp_nodelay(true)?;
        if keepalive {
            self.set_keepalive(&socket)?;
        }
        if let Some(ip) = source
            && let Err(e) = bind_to(&socket, ip)
        {
            // The kernel then chooses the proxy's own address: the application is reached, and sees another client.
            tracing::warn!(%to, source = %ip, error = %e, "cannot use the client's address");
        }
        connect(socket, to).await
    }

    /// Connects from and to loopback, for an application tunnel.
    pub async fn connect_loopback(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.connect(to, Some(to.ip())).await
    }
}

/// Asks for the outcome only when there is an error: a connection that can be written is one.
async fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(e) => return Err(e),
    }
    let stream = TcpStream::from_std(socket.into())?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if ready.is_error() || ready.is_write_closed() {
        return Err(stream.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
    }
    Ok(stream)
}

fn bind_to(socket: &Socket, ip: IpAddr) -> io::Result<()> {
    if !ip.is_loopback() {
        socket::set_transparent_for(socket, ip)?;
    }
    // The port is chosen at connect: else ports run out at some 28 000 connections of one client.
    socket::bind_no_port(socket)?;
    socket.bind(&SockAddr::from(SocketAddr::new(ip, 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> Sockets {
        let options = SocketOptions {
            mark: None,
            reuse_port: true,
            ipv6: true,
            preserve_source: None,
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(180),
                interval: Duration::from_secs(180),
                retries: 9,
            }),
            user_timeout: true,
            dns: None,
        };
        Sockets::in_own_netns(Arc::new(options))
    }

    #[tokio::test]
    async fn a_dual_stack_listener_takes_both_families_and_dials_reach_it() {
        let sockets = sockets();
        let listening = sockets.listen(0, true).unwrap();
        let port = listening.listener.local_addr().unwrap().port();

        for to in ["127.0.0.1", "::1"] {
            let Ok(to) = to.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)) else { continue };
            let client = match sockets.connect(to, None).await {
                Ok(c) => c,
                Err(e) if to.is_ipv6() && e.kind() == io::ErrorKind::AddrNotAvailable => continue,
                Err(e) => panic!("{e}"),
            };
            assert!(client.nodelay().unwrap());
        }
    }

    #[tokio::test]
    async fn two_proxies_may_listen_on_one_port() {
        let sockets = sockets();
        let first = sockets.listen(0, true).unwrap();
        let port = first.listener.local_addr().unwrap().port();

        assert!(sockets.listen(port, false).is_ok());
    }
}
