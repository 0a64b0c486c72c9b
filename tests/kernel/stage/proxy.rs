//! The smallest transparent proxy. Outbound: tells the application what it saw and hangs up.
//! Inbound: carries one request and one response between client and application, with the client's
//! address. It knows nothing of steering; like ztunnel it marks its sockets.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use runtime::sys::socket::{canonical, set_transparent};
use socket2::{Domain, Socket, Type};

use super::{Actor, DEADLINE, RETRANSMITTED, Stage, acceptor::Acceptor};

/// The mark that ztunnel puts on its sockets.
const PROXY_MARK: u32 = 0x539;

/// Its listeners. Dropping them is the proxy's death.
pub(crate) struct Proxy {
    _acceptors: [Acceptor; 3],
}

impl Proxy {
    pub(super) fn start(stage: &Stage) -> Self {
        stage.as_actor(Actor::Proxy, || {
            let listen = |port, serve| Acceptor::start(listener(port, Domain::IPV6, false), serve);
            Self { _acceptors: [listen(15001, outbound), listen(15006, inbound), listen(15008, tunnel)] }
        })
    }
}

/// A listener as a proxy makes it; the caller's cgroup and namespace decide whose it is.
pub(crate) fn listener(port: u16, domain: Domain, shared_port: bool) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    let any: SocketAddr = if domain == Domain::IPV4 {
        ([0, 0, 0, 0], port).into()
    } else {
        socket.set_only_v6(false).unwrap();
        ([0_u16; 8], port).into()
    };
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(shared_port).unwrap();
    socket.set_mark(PROXY_MARK).unwrap();
    set_transparent(&socket).unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(128).unwrap();
    socket
}

fn outbound(mut application: TcpStream) {
    let original = canonical(application.local_addr().unwrap());
    let client = canonical(application.peer_addr().unwrap());
    let _ = application.write_all(format!("outbound to {original} from {client}").as_bytes());
    let _ = application.shutdown(Shutdown::Write);
    let _ = application.read_to_end(&mut Vec::new());
}

/// Answers like a server of tunnels would: only so that one knows where the connection ended.
fn tunnel(mut peer: TcpStream) {
    let _ = peer.write_all(b"hbone");
}

fn inbound(mut client: TcpStream) {
    let original = canonical(client.local_addr().unwrap());
    let source = canonical(client.peer_addr().unwrap());
    let Ok(mut application) = app_leg(SocketAddr::new(source.ip(), 0), original) else { return };
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    application.write_all(&bytes).unwrap();
    application.shutdown(Shutdown::Write).unwrap();
    bytes.clear();
    application.read_to_end(&mut bytes).unwrap();
    client.write_all(&bytes).unwrap();
}

/// Connects to the application with the client's address; port 0: any.
pub(crate) fn app_leg(source: SocketAddr, application: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(application), Type::STREAM, None)?;
    socket.set_mark(PROXY_MARK)?;
    set_transparent(&socket)?;
    socket.bind(&source.into())?;
    socket.set_read_timeout(Some(RETRANSMITTED))?;
    socket.connect_timeout(&application.into(), DEADLINE)?;
    Ok(socket.into())
}
