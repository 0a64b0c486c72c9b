//! DNS sockets of a pod: those on which its applications ask, and those on which the proxy asks nameservers for them. It
//! answers nothing; see the crate `dns`.

use super::{ListenError, Sockets};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

/// Connections the kernel completes ahead of us.
const BACKLOG: i32 = 128;

/// DNS of the pods.
#[derive(Debug, Clone)]
pub struct DnsOptions {
    /// Addresses, in each pod. One that the pod's loopback does not have, such as ::1 without IPv6, is left out.
    pub listen: Vec<SocketAddr>,
    pub settings: Arc<dns::Settings>,
}

/// Sockets of one address, not blocking, not yet known to a runtime.
#[derive(Debug)]
pub struct DnsListening {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

impl Sockets {
    /// Listens on the addresses of `options`.
    ///
    /// # Errors
    /// When an address is there and cannot be had, or none of them is there.
    pub fn listen_dns(&self, options: &DnsOptions) -> Result<Vec<DnsListening>, ListenError> {
        let mut listening = Vec::with_capacity(options.listen.len());
        let mut absent = None;
        for address in &options.listen {
            match self.listen_dns_on(*address) {
                Ok(sockets) => listening.push(sockets),
                // Asked of the kernel, in the pod: `disable_ipv6` of its loopback may be otherwise than ours.
                Err(source) if address.ip().is_loopback() && is_absent(&source) => absent = Some((*address, source)),
                Err(source) => return Err(ListenError::Bind { address: *address, source }),
            }
        }
        match absent {
            Some((address, source)) if listening.is_empty() => Err(ListenError::Bind { address, source }),
            Some(_) | None => Ok(listening),
        }
    }

    fn listen_dns_on(&self, address: SocketAddr) -> io::Result<DnsListening> {
        let make = |kind: Type, protocol| -> io::Result<Socket> {
            let socket =
                self.marked(self.enter(|| Socket::new(Domain::for_address(address), kind, Some(protocol)))?)?;
            socket.set_nonblocking(true)?;
            if address.is_ipv6() {
                // ::1 and 127.0.0.1 are two sockets; the wildcard is one.
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            if self.options().reuse_port {
                socket.set_reuse_port(true)?;
            }
            Ok(socket)
        };
        let udp = make(Type::DGRAM, Protocol::UDP)?;
        udp.bind(&address.into())?;
        let tcp = make(Type::STREAM, Protocol::TCP)?;
        // A restart must not wait for TIME_WAIT. Not for UDP, where any other socket could then take the questions.
        tcp.set_reuse_address(true)?;
        tcp.set_tcp_nodelay(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(BACKLOG)?;
        Ok(DnsListening { udp: udp.into(), tcp: tcp.into() })
    }

    /// A UDP socket that is connected to `to`, from an address of the pod and a port that the kernel chooses at random.
    ///
    /// # Errors
    /// Those of socket(2), connect(2), and of the runtime that is to watch it.
    pub fn connect_udp(&self, to: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
        let socket = self.marked(self.datagram(Domain::for_address(to))?)?;
        socket.connect(&to.into())?;
        tokio::net::UdpSocket::from_std(socket.into())
    }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT].map(|errno| Some(errno.raw_os_error()));
    absent.contains(&error.raw_os_error())
}
