//! DNS of a pod without its messages: the proxy's sockets on loopback, which answer each question with itself and its sender, and
//! resolvers of applications that ask in different ways.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use runtime::sys::socket::canonical;
use socket2::{Domain, Socket, Type};

use super::{Actor, DEADLINE, DNS_PORT, FAR_V4, FAR_V6, Stage, acceptor::Acceptor, at};

/// Between two looks of a thread whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// Nameserver that applications ask, of the family of `like`. Nobody's address.
pub(crate) fn nameserver(like: IpAddr) -> SocketAddr {
    at(if like.is_ipv4() { FAR_V4 } else { FAR_V6 }, 53)
}

/// The proxy's sockets for DNS, which it binds to loopback like ztunnel. Dropping them is the proxy's death.
pub(crate) struct Resolver {
    /// Addresses to which the sockets are bound, UDP and TCP of each family.
    pub(crate) bound: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _acceptors: Vec<Acceptor>,
}

impl Resolver {
    pub(crate) fn start(stage: &Stage) -> Self {
        stage.as_actor(Actor::Proxy, || {
            let stop = Arc::new(AtomicBool::new(false));
            let mut resolver = Self { bound: Vec::new(), stop, threads: Vec::new(), _acceptors: Vec::new() };
            for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                resolver.listen(at(loopback, DNS_PORT));
            }
            resolver
        })
    }

    fn listen(&mut self, address: SocketAddr) {
        let udp = bound(address, Type::DGRAM);
        let udp = UdpSocket::from(udp);
        udp.set_read_timeout(Some(TURN)).unwrap();
        let tcp = bound(address, Type::STREAM);
        tcp.listen(16).unwrap();
        self.bound.push(udp.local_addr().unwrap());
        self.bound.push(tcp.local_addr().unwrap().as_socket().unwrap());
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            let mut question = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut question) else { continue };
                udp.send_to(&answer(&question[..length], from), from).unwrap();
            }
        }));
        self._acceptors.push(Acceptor::start(tcp, |mut stream| {
            let (from, mut question) = (stream.peer_addr().unwrap(), Vec::new());
            if stream.read_to_end(&mut question).is_ok() {
                let _ = stream.write_all(&answer(&question, from));
            }
        }));
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn bound(address: SocketAddr, kind: Type) -> Socket {
    let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn answer(question: &[u8], from: SocketAddr) -> Vec<u8> {
    format!("{} from {}", String::from_utf8_lossy(question), canonical(from).ip()).into_bytes()
}

/// Answer to a question, and the address that it comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) text: String,
    pub(crate) from: SocketAddr,
}

/// Asks as musl does: by a socket that is not connected, and whose answers are known by their source.
pub(crate) fn ask_unconnected(nameserver: SocketAddr) -> io::Result<Answered> {
    let socket = socket_for(nameserver)?;
    send_and_receive(&socket, nameserver)
}

/// Sends by a socket that may be connected elsewhere, or not at all.
pub(crate) fn send_and_receive(socket: &UdpSocket, nameserver: SocketAddr) -> io::Result<Answered> {
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.send_to(b"question", nameserver)?;
    receive(socket)
}

/// Asks as glibc and Go do: by a socket that is connected.
pub(crate) fn ask_connected(nameserver: SocketAddr) -> io::Result<Answered> {
    let socket = socket_for(nameserver)?;
    socket.connect(nameserver)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.send(b"question")?;
    receive(&socket)
}

/// Asks over TCP, as after an answer that was cut.
pub(crate) fn ask_over_tcp(nameserver: SocketAddr) -> io::Result<Answered> {
    let mut stream = TcpStream::connect_timeout(&nameserver, DEADLINE)?;
    let from = stream.peer_addr()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"question")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Answered { text, from })
}

/// A socket of the nameserver's family, bound to any address.
pub(crate) fn socket_for(nameserver: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(at(super::any(nameserver.ip()), 0))
}

fn receive(socket: &UdpSocket) -> io::Result<Answered> {
    let mut text = [0; 512];
    let (length, from) = socket.recv_from(&mut text)?;
    Ok(Answered { text: String::from_utf8_lossy(&text[..length]).into_owned(), from })
}
