//! One client and one server in memory, for `perf stat`, `valgrind` and the like: `measure MODE COUNT`, where MODE is `connects`
//! (tunnel streams that are opened, carry a few bytes and end), `requests` (100 bytes to and fro on one stream) or `bulk`
//! (MiB on one stream).

use bytes::Bytes;
use hbone::{Request, Server, Settings, client};
use http::HeaderMap;
use std::error::Error;
use tokio::io::{BufReader, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or("MODE is missing")?;
    let count: usize = arguments.next().ok_or("COUNT is missing")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let (near, far) = duplex(1 << 20);
        spawn_local(serve(far));
        let (tunnel, driver) = client::start(BufReader::with_capacity(64 << 10, near), &Settings::default());
        spawn_local(driver);
        let open = || tunnel.connect("10.0.0.1:80", HeaderMap::new());
        match mode.as_str() {
            "connects" => {
                for _ in 0..count {
                    let (mut send, mut recv) = open().await?.stream.split();
                    send.send(Bytes::from_static(&[7; 100])).await?;
                    send.finish()?;
                    while let Some(piece) = recv.data().await? {
                        recv.release(piece.len());
                    }
                }
            }
            "requests" => {
                let (mut send, mut recv) = open().await?.stream.split();
                for _ in 0..count {
                    send.send(Bytes::from_static(&[7; 100])).await?;
                    let piece = recv.data().await?.ok_or("the end")?;
                    recv.release(piece.len());
                }
            }
            "bulk" => {
                let (mut send, mut recv) = open().await?.stream.split();
                let piece = Bytes::from(vec![7; 64 << 10]);
                spawn_local(async move {
                    for _ in 0..count * 16 {
                        if send.send(piece.clone()).await.is_err() {
                            return;
                        }
                    }
                    let _ = send.finish();
                });
                while let Some(piece) = recv.data().await? {
                    recv.release(piece.len());
                }
            }
            other => return Err(format!("MODE is {other:?}, expected connects, requests or bulk").into()),
        }
        Ok(())
    })
}

async fn serve(io: DuplexStream) {
    let Ok(mut server) = Server::handshake(BufReader::with_capacity(64 << 10, io), &Settings::default()).await else {
        return;
    };
    while let Ok(Some(request)) = server.accept().await {
        spawn_local(echo(request));
    }
}

async fn echo(request: Request) {
    let Some(stream) = request.accept(HeaderMap::new()) else { return };
    let (mut send, mut recv) = stream.split();
    while let Ok(Some(piece)) = recv.data().await {
        recv.release(piece.len());
        if send.send(piece).await.is_err() {
            return;
        }
    }
    // Nobody waits for more when the client has gone.
    let _ = send.finish();
}
