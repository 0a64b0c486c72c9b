//! The server role without TLS, for conformance tools: `h2spec -h 127.0.0.1 -p PORT`. Prints the port that it listens on.
//!
//! Every request is accepted. A CONNECT gets back what it sends; any other request is read to its end and answered with
//! a few bytes.

use hbone::{Request, Server, Settings};
use http::{HeaderMap, Method};
use std::error::Error;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (socket, _) = listener.accept().await?;
            spawn_local(connection(socket));
        }
    })
}

async fn connection(socket: TcpStream) {
    // h2spec takes a HEADERS frame of 20 KiB for one that is too long, whatever the server announces.
    let settings = Settings { frame_bytes: 16 << 10, ..Settings::default() };
    let mut server = match Server::handshake(BufReader::new(socket), &settings).await {
        Ok(server) => server,
        Err(e) => return eprintln!("{e}"),
    };
    loop {
        match server.accept().await {
            Ok(Some(request)) => drop(spawn_local(answer(request))),
            Ok(None) => return,
            Err(e) => return eprintln!("{e}"),
        }
    }
}

async fn answer(request: Request) {
    let is_tunnel = request.method() == Method::CONNECT;
    let Some(stream) = request.accept(HeaderMap::new()) else { return };
    let (mut send, mut recv) = stream.split();
    while let Ok(Some(piece)) = recv.data().await {
        recv.release(piece.len());
        if is_tunnel && send.send(piece).await.is_err() {
            return;
        }
    }
    if is_tunnel || send.send("hello".into()).await.is_ok() {
        // The peer may have reset the stream meanwhile, which is its right.
        let _ = send.finish();
    }
}
