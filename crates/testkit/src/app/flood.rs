//! A client that misbehaves: it asks for much, takes nothing, or gives up. At a pace that is given, because a flood that
//! takes whatever a machine has says nothing of the proxy.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use http::{Method, Request};
use serde_json::{Value, json};
use socket2::SockRef;

use super::{bulk, hbone, load::stop_at_end_of_input};

/// Longest wait for a peer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes that a slow reader asks for: more than it can be sent.
const ENDLESS: u64 = 1 << 40;

/// Bytes of the headers of one request, below what a proxy refuses (8 KiB).
const HEADER_BYTES: usize = 7 << 10;

/// Kind and amount of a flood.
#[derive(Debug, Args)]
pub struct FloodArgs {
    /// Kind of flood.
    pub kind: Flood,
    /// Address of the victim: an HBONE port for `hellos`, `streams` and `headers`; port 7003 of a server for `readers`.
    pub target: SocketAddr,
    /// Number of times per second.
    #[arg(long, default_value_t = 500)]
    pub per_second: u32,
    /// Connections that are held; the oldest is closed for the next one.
    #[arg(long, default_value_t = 1000)]
    pub hold: usize,
    /// `:authority` of a CONNECT (`streams`, `headers`).
    #[arg(long, default_value = "")]
    pub authority: String,
    /// Certificate chain, PEM (`streams`, `headers`).
    #[arg(long)]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long)]
    pub key: Option<PathBuf>,
}

/// Kinds of misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flood {
    /// Opens connections and holds them.
    Connections,
    /// Opens connections and resets them.
    Resets,
    /// Sends the first byte of a TLS handshake, and no other.
    Hellos,
    /// Asks for bytes without end and reads none.
    Readers,
    /// Opens streams of one tunnel and resets them.
    Streams,
    /// Sends CONNECTs with big headers on one tunnel.
    Headers,
}

impl Flood {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Resets => "resets",
            Self::Hellos => "hellos",
            Self::Readers => "readers",
            Self::Streams => "streams",
            Self::Headers => "headers",
        }
    }
}

/// Floods until standard input ends; then prints the numbers of tries and failures. Returns the exit code.
pub fn run(args: &FloodArgs) -> i32 {
    let report = match args.kind {
        Flood::Connections | Flood::Resets | Flood::Hellos | Flood::Readers => Ok(sockets(args)),
        Flood::Streams | Flood::Headers => hbone::runtime().and_then(|runtime| runtime.block_on(requests(args))),
    };
    let report = report.unwrap_or_else(|err| json!({ "error": err.to_string() }));
    println!("{report}");
    i32::from(report.get("error").is_some())
}

/// The moments at which the next one is due. One that was missed is not made up for.
struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    fn pause(&mut self) -> Duration {
        let now = Instant::now();
        // Without `max` a machine that was busy would get all that it missed in one burst.
        self.next = (self.next + self.every).max(now);
        self.next - now
    }
}

fn sockets(args: &FloodArgs) -> Value {
    let stop = stop_at_end_of_input();
    let (mut pace, mut held) = (Pace::new(args.per_second), VecDeque::new());
    let (mut done, mut failed) = (0u64, 0u64);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        match once(args) {
            Ok(socket) => held.extend(socket),
            // A refusal is what a protected proxy may answer: it is counted and ends nothing.
            Err(_) => failed += 1,
        }
        // Slow readers stay: what counts is what is kept for them.
        let is_full = held.len() >= args.hold;
        if is_full && args.kind == Flood::Readers {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
            }
        } else if is_full {
            // Dropped, and so closed with FIN.
            held.pop_front();
        }
        done += 1;
        if done == 1 {
            println!("started");
        }
        thread::sleep(pace.pause());
    }
    json!({ "done": done, "failed": failed, "held": held.len() })
}

/// One connection; the socket where it is held.
fn once(args: &FloodArgs) -> io::Result<Option<TcpStream>> {
    let mut socket = TcpStream::connect_timeout(&args.target, DEADLINE)?;
    socket.set_write_timeout(Some(DEADLINE))?;
    match args.kind {
        Flood::Connections => {}
        Flood::Resets => {
            socket.write_all(b"x")?;
            // With a linger time of 0 the kernel sends RST instead of FIN at `close` (socket(7)).
            SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
            return Ok(None);
        }
        // 22 is the type of a handshake record (RFC 8446, section 5.1): the victim has to wait for the rest.
        Flood::Hellos => socket.write_all(&[22])?,
        // The kernel's receive buffer fills, and then whatever the proxy keeps.
        Flood::Readers => bulk::ask(&mut socket, 1, ENDLESS)?,
        Flood::Streams | Flood::Headers => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(Some(socket))
}

/// Requests on one tunnel after the other: one that is closed is replaced.
async fn requests(args: &FloodArgs) -> io::Result<Value> {
    let stop = stop_at_end_of_input();
    let (mut pace, mut done, mut tunnels) = (Pace::new(args.per_second), 0u64, 0u64);
    println!("started");
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let tls = hbone::handshake(args.target, args.cert.as_deref(), args.key.as_deref()).await?;
        let (client, connection) = h2::client::handshake(tls).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        tunnels += 1;
        let mut client = client;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            // The proxy has closed the tunnel: the outer loop opens the next one.
            let Ok(ready) = client.ready().await else { break };
            client = ready;
            let Ok((answer, mut send)) = client.send_request(request(args)?, false) else { break };
            match args.kind {
                Flood::Headers => drop(answer.await),
                _ => send.send_reset(h2::Reason::CANCEL),
            }
            done += 1;
            tokio::time::sleep(pace.pause()).await;
        }
        // The connection is dropped without GOAWAY, as by a client that is killed.
        driver.abort();
        tokio::time::sleep(pace.pause()).await;
    }
    Ok(json!({ "done": done, "tunnels": tunnels }))
}

fn request(args: &FloodArgs) -> io::Result<Request<()>> {
    let request = Request::builder().method(Method::CONNECT).uri(args.authority.as_str());
    let request = match args.kind {
        Flood::Headers => request.header("x-filler", "f".repeat(HEADER_BYTES)),
        _ => request,
    };
    request.body(()).map_err(io::Error::other)
}
