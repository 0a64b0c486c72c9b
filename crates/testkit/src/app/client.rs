//! The client's actions: each once, with a deadline, and a line of JSON about it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs},
    time::Instant,
};

use serde_json::{Value, json};

use super::{Action, ClientArgs, Family, bulk, http, load, pattern, server};

/// Seed of the patterns; any number will do.
const SEED: u64 = 20_260;

/// Does what `args` say and prints the result; the exit code.
pub fn run(args: &ClientArgs) -> i32 {
    let begun = Instant::now();
    let mut report = match act(args) {
        Ok(report) => report,
        Err(err) => json!({ "error": err.to_string(), "kind": format!("{:?}", err.kind()) }),
    };
    report["seconds"] = json!(begun.elapsed().as_secs_f64());
    println!("{report}");
    // The report is printed in both cases: a test reads the kind of the error from it.
    i32::from(report.get("error").is_some())
}

fn act(args: &ClientArgs) -> io::Result<Value> {
    match args.action {
        Action::Echo => echo(args),
        Action::Http => requests(args),
        Action::Loop => load::request_loop(args),
        Action::Hold => load::hold(args),
        Action::Connections => load::connections(args),
        Action::ServerFirst => server_first(args),
        Action::Upload => bulk::upload(connect(args)?, SEED, args.bytes).map(|()| json!({ "bytes": args.bytes })),
        Action::Download => bulk::download(connect(args)?, SEED, args.bytes).map(|()| json!({ "bytes": args.bytes })),
        Action::Watch => bulk::watch(connect(args)?, SEED, args.bytes).map(|end| json!({ "end": end })),
        Action::Duplex => bulk::duplex(connect(args)?, SEED, args.bytes).map(|()| json!({ "bytes": args.bytes })),
        Action::ReadThenWrite => read_then_write(args),
        Action::AskReset => ask_reset(args),
        Action::Abort => abort(args),
    }
}

/// The target's addresses of the wanted family.
///
/// # Errors
/// When the name has none.
pub fn resolve(args: &ClientArgs) -> io::Result<Vec<SocketAddr>> {
    let wanted = |addr: &SocketAddr| match args.family {
        None => true,
        Some(Family::V4) => addr.is_ipv4(),
        Some(Family::V6) => addr.is_ipv6(),
    };
    // The pod's own resolver, so that the answer is what an application would get.
    let found: Vec<_> = args.target.to_socket_addrs()?.filter(wanted).collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has no such address", args.target)));
    }
    Ok(found)
}

/// Connects to the first address of the target.
///
/// # Errors
/// Those of the socket; `TimedOut` after the action's deadline.
pub fn connect(args: &ClientArgs) -> io::Result<TcpStream> {
    connect_to(&resolve(args)?[0], args)
}

/// Connects to one address, with the action's deadlines on the socket.
///
/// # Errors
/// Those of the socket.
pub fn connect_to(addr: &SocketAddr, args: &ClientArgs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(addr, args.timeout())?;
    stream.set_read_timeout(Some(args.timeout()))?;
    stream.set_write_timeout(Some(args.timeout()))?;
    // Without it Nagle's algorithm would hold small writes back, and a test would measure that.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(args: &ClientArgs) -> io::Result<Value> {
    let mut stream = connect(args)?;
    let local = stream.local_addr()?;
    let mut out = stream.try_clone()?;
    let bytes = args.bytes;
    let writer =
        std::thread::spawn(move || pattern::send(&mut out, SEED, bytes).and_then(|()| out.shutdown(Shutdown::Write)));
    let read = pattern::expect(&mut stream, SEED, bytes).and_then(|()| pattern::expect_end(&mut stream));
    if read.is_err() {
        // Lets a writer go that nobody reads. Fails when the connection is gone, and the writer with it.
        let _ = stream.shutdown(Shutdown::Both);
    }
    let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
    match (read, written) {
        // A socket tells of its reset once, be it to who writes; who reads then sees an end.
        (Err(end), Err(reset))
            if end.kind() == io::ErrorKind::UnexpectedEof && reset.kind() == io::ErrorKind::ConnectionReset =>
        {
            Err(reset)
        }
        (Err(e), _) | (Ok(()), Err(e)) => Err(e),
        (Ok(()), Ok(())) => Ok(json!({ "bytes": bytes, "local": local.to_string() })),
    }
}

/// A GET on a connection of its own, `count` times; the last body is reported.
fn requests(args: &ClientArgs) -> io::Result<Value> {
    let mut last = (0, String::new());
    let mut local = String::new();
    for _ in 0..args.count {
        // A new connection each time: the mesh chooses an endpoint for each.
        let stream = connect(args)?;
        local = stream.local_addr()?.ip().to_canonical().to_string();
        last = http::get(&mut BufReader::new(stream), &args.target, &args.text, &args.header)?;
    }
    Ok(json!({ "status": last.0, "body": last.1.trim_end(), "local": local, "count": args.count }))
}

fn server_first(args: &ClientArgs) -> io::Result<Value> {
    let mut reader = BufReader::new(connect(args)?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting)?;
    reader.get_mut().write_all(b"hello\n")?;
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    Ok(json!({ "greeting": greeting.trim_end(), "answer": answer.trim_end() }))
}

fn read_then_write(args: &ClientArgs) -> io::Result<Value> {
    let mut stream = connect(args)?;
    stream.write_all(format!("{}\n", args.text).as_bytes())?;
    let mut word = String::new();
    stream.read_to_string(&mut word)?; // the server's FIN
    pattern::send(&mut stream, SEED, args.bytes)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(json!({ "word": word.trim_end(), "bytes": args.bytes }))
}

/// The error is the expected result: it is reported, not returned.
fn ask_reset(args: &ClientArgs) -> io::Result<Value> {
    let mut stream = connect(args)?;
    stream.write_all(b"rst\n")?;
    let end = match stream.read_to_end(&mut Vec::new()) {
        Ok(n) => format!("end after {n} bytes"),
        Err(err) => format!("{:?}", err.kind()),
    };
    Ok(json!({ "end": end }))
}

fn abort(args: &ClientArgs) -> io::Result<Value> {
    let mut reader = BufReader::new(connect(args)?);
    reader.get_mut().write_all(format!("watch {}\n", args.text).as_bytes())?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    // Only after the server's answer: the connection is then known to be open from end to end.
    server::abort(reader.into_inner())?;
    Ok(json!({ "answer": line.trim_end() }))
}
