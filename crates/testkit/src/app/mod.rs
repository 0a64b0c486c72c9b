//! `strake-testapp`: the applications that the mesh carries in tests. Plain blocking sockets, so that what a
//! test sees is the kernel's and the mesh's doing, not a framework's.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod bulk;
pub mod client;
pub mod dns;
pub mod flood;
pub mod grpc;
pub mod hbone;
pub mod http;
pub mod load;
pub mod measure;
pub mod pattern;
pub mod server;

/// Sends back what it gets; half-closes when the client does.
pub const ECHO: u16 = 7000;
/// Speaks first: `220 ready`, then echoes.
pub const SERVER_FIRST: u16 = 7001;
/// Takes a pattern and says after the client's FIN whether it was whole.
pub const SINK: u16 = 7002;
/// Sends a pattern, then FIN.
pub const SOURCE: u16 = 7003;
/// Both at once.
pub const DUPLEX: u16 = 7004;
/// Resets the connection, or notes how the client ended it.
pub const RESET: u16 = 7005;
/// Sends a word and FIN, then reads on.
pub const HALF_CLOSE: u16 = 7006;
/// Takes any bytes and says after the client's FIN how many.
pub const DISCARD: u16 = 7007;
/// Answers each request with the same 128 bytes, as fast as it can.
pub const ANSWERS: u16 = 7008;
/// HTTP/1.1 with keep-alive.
pub const HTTP: u16 = 8080;

/// The test application.
#[derive(Debug, Parser)]
#[command(name = "strake-testapp")]
pub struct Cli {
    /// Role to play.
    #[command(subcommand)]
    pub role: Role,
}

/// Role to play.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// All servers at once, on their ports, on both families.
    Serve,
    /// One action of a client; prints one line of JSON, exits with 1 when it failed.
    Client(ClientArgs),
    /// Asks a nameserver for the addresses of a name, as one kind of resolver does; prints one line of JSON, exits with 1 without
    /// an answer.
    Resolve(dns::ResolveArgs),
    /// Measures how fast a path is; prints one line of JSON, exits with 1 when anything failed.
    Measure(MeasureArgs),
    /// Misbehaves until its input ends; prints one line of JSON then.
    Flood(flood::FloodArgs),
    /// Dials a workload's HBONE port with a certificate of choice.
    HboneClient(HboneClientArgs),
    /// Plays a workload's HBONE port with a certificate of choice.
    HboneServer(HboneServerArgs),
    /// Answers gRPC health checks.
    GrpcHealth(GrpcHealthArgs),
}

/// A client's action and target.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Action.
    pub action: Action,
    /// `host:port`; names go through the system's resolver.
    pub target: String,
    /// Bytes to move (echo, upload, download, duplex).
    #[arg(long, default_value_t = 1024)]
    pub bytes: u64,
    /// Connections or requests.
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// Connections at a time.
    #[arg(long, default_value_t = 1)]
    pub parallel: u32,
    /// Pause between requests, milliseconds.
    #[arg(long, default_value_t = 0)]
    pub every_ms: u64,
    /// Longest wait for anything, milliseconds.
    #[arg(long, default_value_t = 10_000)]
    pub timeout_ms: u64,
    /// Which family to use when the name has both.
    #[arg(long)]
    pub family: Option<Family>,
    /// Path of a request, or text to send.
    #[arg(long, default_value = "/")]
    pub text: String,
    /// `name: value` of a request's header; may be repeated.
    #[arg(long)]
    pub header: Vec<String>,
}

impl ClientArgs {
    /// Longest wait for anything.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Kind and duration of a measurement.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// Kind of measurement.
    pub what: Measure,
    /// Port 7007 (bulk) or 7008 of a server.
    pub target: SocketAddr,
    /// Connections at a time.
    #[arg(long, default_value_t = 1)]
    pub parallel: u32,
    /// For how long.
    #[arg(long, default_value_t = 1000)]
    pub milliseconds: u64,
}

impl MeasureArgs {
    /// For how long.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

/// Kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Gbit/s from client to server, over `parallel` connections.
    Bulk,
    /// Requests per second, one after the other on each of `parallel` connections.
    Requests,
    /// New connections per second, `parallel` at a time, with a request on each.
    Connections,
}

/// Action of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Sends a pattern, gets it back.
    Echo,
    /// One GET per connection, `count` times.
    Http,
    /// GETs over one connection until stdin closes; reports how many failed.
    Loop,
    /// Echoes over one connection until it breaks or stdin closes.
    Hold,
    /// Reads the greeting before it sends anything.
    ServerFirst,
    /// Sends `bytes`, FIN, reads the verdict.
    Upload,
    /// Asks for `bytes`, checks them.
    Download,
    /// Downloads `bytes`, says `started` once they come; reports how that ended.
    Watch,
    /// Upload and download at once on one connection.
    Duplex,
    /// Reads the server's FIN, then sends `bytes`, then FIN.
    ReadThenWrite,
    /// Asks the server to reset; reports how that looked.
    AskReset,
    /// Sends `text`, then resets.
    Abort,
    /// `count` short connections, `parallel` at a time, an echo each.
    Connections,
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Options for dialling an HBONE port.
#[derive(Debug, Args)]
pub struct HboneClientArgs {
    /// The HBONE port.
    pub target: SocketAddr,
    /// `:authority` of the CONNECT.
    #[arg(long)]
    pub authority: String,
    /// Certificate chain, PEM; without one no client certificate is sent.
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// Sent through the tunnel once it is open.
    #[arg(long, default_value = "")]
    pub send: String,
    /// Another method than CONNECT.
    #[arg(long)]
    pub method: Option<String>,
}

/// Options for serving an HBONE port.
#[derive(Debug, Args)]
pub struct HboneServerArgs {
    /// Address to listen on.
    #[arg(long, default_value = "[::]:15008")]
    pub listen: SocketAddr,
    /// Certificate chain, PEM.
    #[arg(long)]
    pub cert: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    pub key: PathBuf,
}

/// Answer to health checks.
#[derive(Debug, Args)]
pub struct GrpcHealthArgs {
    /// Address to listen on.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The service that it knows besides the server as a whole.
    #[arg(long)]
    pub service: Option<String>,
    /// It is not serving while this file is there.
    #[arg(long)]
    pub failing_while: Option<PathBuf>,
}

/// Runs the program; the exit code.
pub fn run(cli: Cli) -> i32 {
    match cli.role {
        Role::Serve => server::run(),
        Role::Client(args) => client::run(&args),
        Role::Resolve(args) => dns::run(&args),
        Role::Measure(args) => measure::run(&args),
        Role::Flood(args) => flood::run(&args),
        Role::HboneClient(args) => hbone::client(&args),
        Role::HboneServer(args) => hbone::server(&args),
        Role::GrpcHealth(args) => grpc::run(args),
    }
}
