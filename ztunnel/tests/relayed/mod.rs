//! Connections through a relay, in plain text or through a tunnel in memory, between real sockets.
#![allow(dead_code, unreachable_pub)]

use hbone::{Server, Settings, Tunnel, client};
use http::HeaderMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use telemetry::Direction;
use telemetry::metrics::{TrafficHandles, TrafficLabels};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::timeout;
use ztunnel::proxy::relay::{self, Counts, Scratch};

/// No step takes this long.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A write that makes no progress for so long waits for its reader.
pub const STUCK: Duration = Duration::from_millis(300);
/// More than all buffers on the way together.
pub const MUCH: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Tunnel,
    Plain,
}

/// A connection with small buffers.
pub async fn connected() -> (TcpStream, TcpStream) {
    let small = |socket: TcpSocket| {
        socket.set_send_buffer_size(16 << 10).unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket
    };
    let listener = small(TcpSocket::new_v4().unwrap());
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let connecting = small(TcpSocket::new_v4().unwrap()).connect(listener.local_addr().unwrap());
    let (near, accepted) = tokio::join!(connecting, listener.accept());
    (near.unwrap(), accepted.unwrap().0)
}

pub fn counts() -> Counts {
    let labels = TrafficLabels::unknown(Direction::Outbound);
    Counts::new(u64::MAX, Arc::new(TrafficHandles::new(labels)))
}

/// A tunnel in memory: its client's end, driven, and its server's.
pub async fn tunnel(settings: &Settings) -> (Tunnel, Server<BufReader<DuplexStream>>) {
    let (a, b) = tokio::io::duplex(64 << 10);
    let (tunnel, driver) = client::start(BufReader::new(a), settings);
    spawn_local(driver);
    (tunnel, Server::handshake(BufReader::new(b), settings).await.unwrap())
}

/// A relayed connection: the client's end and the server's.
pub async fn mesh(way: Way) -> (TcpStream, TcpStream) {
    let (client_app, mut captured) = connected().await;
    let (mut dialled, server_app) = connected().await;
    let scratch = Rc::new(Scratch::default());
    match way {
        Way::Plain => {
            spawn_local(async move { relay::plain(&mut captured, &mut dialled, &scratch, &counts()).await });
        }
        Way::Tunnel => {
            let settings = Settings {
                stream_window_bytes: 64 << 10,
                connection_window_bytes: 256 << 10,
                send_buffer_bytes: 16 << 10,
                ..Settings::default()
            };
            relay_through_tunnel(captured, dialled, scratch, &settings).await;
        }
    }
    (client_app, server_app)
}

/// Relays between the two sockets through a stream of a tunnel of its own.
pub async fn relay_through_tunnel(
    mut captured: TcpStream,
    mut dialled: TcpStream,
    scratch: Rc<Scratch>,
    settings: &Settings,
) {
    let (tunnel, mut server) = tunnel(settings).await;
    let serving = scratch.clone();
    spawn_local(async move {
        let request = server.accept().await.unwrap().unwrap();
        let stream = request.accept(HeaderMap::new()).unwrap();
        spawn_local(async move { relay::inbound(stream, &mut dialled, &serving, &counts()).await });
        while let Ok(Some(_)) = server.accept().await {}
    });
    let stream = tunnel.connect("10.0.0.1:80", HeaderMap::new()).await.unwrap().stream;
    spawn_local(async move { relay::outbound(&mut captured, stream, &scratch, &counts()).await });
}

pub async fn greet(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").await.unwrap();
    timeout(PATIENCE, to.read_exact(&mut [0; 5])).await.unwrap().unwrap();
}

/// Writes until nobody takes any more.
pub async fn fill(socket: &mut TcpStream) {
    let all = vec![7; MUCH];
    let mut rest = &all[..];
    while let Ok(n) = timeout(STUCK, socket.write(rest)).await {
        rest = &rest[n.unwrap()..];
    }
    assert!(!rest.is_empty(), "everything was taken");
}

/// Ends one half, and waits until the other side has seen it.
pub async fn end(from: &mut TcpStream, to: &mut TcpStream) {
    from.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, to.read(&mut [0])).await.unwrap().unwrap(), 0);
}

/// Waits until the kernel of the other end has taken all that was written.
pub async fn acknowledged(socket: &TcpStream) {
    let taken = async {
        while runtime::sys::socket::unacknowledged_bytes(socket).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken).await.expect("the proxy reads");
}

/// Everything that can be read, and how it ends.
pub async fn read_all(socket: &mut TcpStream) -> (usize, Result<(), ErrorKind>) {
    let (mut total, mut block) = (0, vec![0; 8 << 10]);
    loop {
        match timeout(PATIENCE, socket.read(&mut block)).await.expect("neither data nor an end") {
            Ok(0) => return (total, Ok(())),
            Ok(n) => total += n,
            Err(e) => return (total, Err(e.kind())),
        }
    }
}
