//! Resolvers that use sockets in other ways than the C library of this machine, whose own is `getent`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::{Value, json};

/// Port of nameservers (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// Most bytes of an answer over UDP without EDNS (RFC 1035, section 2.3.4).
const UDP_BYTES: usize = 512;

/// Question, nameserver and way of asking.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// Way of asking.
    pub way: Way,
    /// Name, complete.
    pub name: String,
    /// Nameserver; default: the first one of /etc/resolv.conf.
    #[arg(long)]
    pub nameserver: Option<IpAddr>,
    /// Ask for IPv6 addresses.
    #[arg(long)]
    pub aaaa: bool,
    /// Longest wait for an answer, milliseconds.
    #[arg(long, default_value_t = 6000)]
    pub timeout_ms: u64,
}

/// Way of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// As musl: a UDP socket that is not connected; what does not come from the nameserver is ignored.
    Unconnected,
    /// As Go: a UDP socket that is connected, and over TCP when the answer is cut.
    Connected,
    /// Over TCP at once.
    Tcp,
}

/// Asks and prints what came: `addresses`, `code`, `nameserver`, `peer` and `ms`, or `error`. Returns the exit code.
pub fn run(args: &ResolveArgs) -> i32 {
    let begun = Instant::now();
    let (report, code) = match resolve(args) {
        Ok(report) => (report, 0),
        Err(error) => (json!({ "error": error.to_string() }), 1),
    };
    let mut report = report;
    report["ms"] = json!(begun.elapsed().as_millis() as u64);
    println!("{report}");
    code
}

fn resolve(args: &ResolveArgs) -> io::Result<Value> {
    let nameserver = match args.nameserver {
        Some(ip) => ip,
        None => first_nameserver()?,
    };
    let server = SocketAddr::new(nameserver, PORT);
    let deadline = Duration::from_millis(args.timeout_ms);
    let question = question(args)?;
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let (answer, peer) = match args.way {
        Way::Unconnected => unconnected(server, &bytes, deadline)?,
        Way::Connected => {
            let (answer, peer) = connected(server, &bytes, deadline)?;
            if message(&answer)?.metadata.truncation { over_tcp(server, &bytes, deadline)? } else { (answer, peer) }
        }
        Way::Tcp => over_tcp(server, &bytes, deadline)?,
    };
    let answer = message(&answer)?;
    let addresses: Vec<IpAddr> = answer.answers.iter().filter_map(|record| address(&record.data)).collect();
    let code = answer.metadata.response_code.to_string();
    Ok(json!({ "addresses": addresses, "code": code, "nameserver": server, "peer": peer }))
}

fn first_nameserver() -> io::Result<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let first = text.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    first.ok_or_else(|| io::Error::other("/etc/resolv.conf names no nameserver"))
}

fn question(args: &ResolveArgs) -> io::Result<Message> {
    let name = Name::from_ascii(&args.name).map_err(io::Error::other)?;
    let kind = if args.aaaa { RecordType::AAAA } else { RecordType::A };
    // Any number does: each run has a socket of its own.
    let mut question = Message::new(std::process::id() as u16, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    Ok(question)
}

fn message(bytes: &[u8]) -> io::Result<Message> {
    Message::from_vec(bytes).map_err(io::Error::other)
}

const fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn socket(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind(SocketAddr::new(any, 0))
}

fn unconnected(server: SocketAddr, question: &[u8], deadline: Duration) -> io::Result<(Vec<u8>, SocketAddr)> {
    let (socket, end) = (socket(server)?, Instant::now() + deadline);
    socket.send_to(question, server)?;
    let mut answer = [0; UDP_BYTES];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut answer) {
            Ok((length, from)) if from == server => return Ok((answer[..length].to_vec(), from)),
            // Of somebody else: it may be forged.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn connected(server: SocketAddr, question: &[u8], deadline: Duration) -> io::Result<(Vec<u8>, SocketAddr)> {
    let socket = socket(server)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(deadline))?;
    socket.send(question)?;
    let mut answer = [0; UDP_BYTES];
    let length = socket.recv(&mut answer)?;
    Ok((answer[..length].to_vec(), socket.peer_addr()?))
}

fn over_tcp(server: SocketAddr, question: &[u8], deadline: Duration) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut stream = TcpStream::connect_timeout(&server, deadline)?;
    stream.set_read_timeout(Some(deadline))?;
    // Two bytes of length come first (RFC 1035, section 4.2.2).
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok((answer, stream.peer_addr()?))
}
