//! Clients that go on for a while: short connections in parallel, a steady loop of requests, one long connection.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    ClientArgs,
    client::{connect, connect_to, resolve},
    http, pattern,
};

/// Bytes of a short connection's echo.
const SHORT: u64 = 256;

/// Line of a loop of requests whose first request was answered.
pub(crate) const ANSWERED: &str = "answered";

/// Set once standard input has ended: how a test stops an endless client.
pub(super) fn stop_at_end_of_input() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    thread::spawn(move || {
        // An error ends the input as well as its end does.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        seen.store(true, Ordering::Relaxed);
    });
    stop
}

/// `count` connections, `parallel` at a time. Errors are counted by their text, none ends the run.
///
/// # Errors
/// When the target has no address.
pub fn connections(args: &ClientArgs) -> io::Result<Value> {
    let addrs = resolve(args)?;
    let next = AtomicU32::new(0);
    let errors: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let slowest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..args.parallel {
            scope.spawn(|| {
                // A shared counter and not a share for each thread: a slow connection then holds up one thread only.
                while next.fetch_add(1, Ordering::Relaxed) < args.count {
                    let begun = Instant::now();
                    if let Err(err) = short(&addrs[0], args) {
                        let mut errors = errors.lock();
                        *errors.entry(err.to_string()).or_default() += 1;
                    }
                    let mut slowest = slowest.lock();
                    *slowest = begun.elapsed().max(*slowest);
                }
            });
        }
    });
    let errors = errors.into_inner();
    let failed: u32 = errors.values().sum();
    let slowest = slowest.into_inner();
    Ok(
        json!({ "ok": args.count - failed, "failed": failed, "errors": errors, "slowest_ms": slowest.as_millis() as u64 }),
    )
}

fn short(addr: &std::net::SocketAddr, args: &ClientArgs) -> io::Result<()> {
    let mut stream = connect_to(addr, args)?;
    pattern::send(&mut stream, 1, SHORT)?;
    stream.shutdown(Shutdown::Write)?;
    pattern::expect(&mut stream, 1, SHORT)?;
    pattern::expect_end(&mut stream)
}

/// GETs until standard input ends, each on a new connection; [`ANSWERED`] is printed after the first one that succeeded.
/// Failures are counted with the time since the beginning.
///
/// # Errors
/// When the target has no address.
pub fn request_loop(args: &ClientArgs) -> io::Result<Value> {
    // A name that does not exist at all is a mistake of the test and ends it; one that fails later is counted.
    resolve(args)?;
    let stop = stop_at_end_of_input();
    println!("started");
    let (mut ok, mut failures) = (0u32, Vec::new());
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let at = begun.elapsed();
        match connect(args).and_then(|s| http::get(&mut BufReader::new(s), &args.target, &args.text, &args.header)) {
            Ok((200, _)) => {
                ok += 1;
                if ok == 1 {
                    println!("{ANSWERED}");
                }
            }
            Ok((status, _)) => failures.push(format!("{at:.1?}: status {status}")),
            Err(err) => failures.push(format!("{at:.1?}: {err}")),
        }
        thread::sleep(Duration::from_millis(args.every_ms));
    }
    Ok(json!({ "ok": ok, "failed": failures.len(), "failures": failures }))
}

/// Echoes on one connection until standard input ends or the connection does. In the first case both sides finish, and
/// that has to work too.
///
/// # Errors
/// Only when the connection cannot be opened; its later end is in the report.
pub fn hold(args: &ClientArgs) -> io::Result<Value> {
    let mut stream = connect(args)?;
    let stop = stop_at_end_of_input();
    let mut rounds = 0u32;
    while !stop.load(Ordering::Relaxed) {
        if let Err(err) = round(&mut stream) {
            return Ok(broken(rounds, &err));
        }
        rounds += 1;
        if rounds == 1 {
            println!("started");
        }
        // Not 0: a loop without a pause would measure the machine.
        thread::sleep(Duration::from_millis(args.every_ms.max(1)));
    }
    match stream.shutdown(Shutdown::Write).and_then(|()| pattern::expect_end(&mut stream)) {
        Ok(()) => Ok(json!({ "rounds": rounds })),
        Err(err) => Ok(broken(rounds, &err)),
    }
}

fn broken(rounds: u32, err: &io::Error) -> Value {
    json!({ "rounds": rounds, "broken": err.to_string(), "kind": format!("{:?}", err.kind()) })
}

fn round(stream: &mut std::net::TcpStream) -> io::Result<()> {
    io::Write::write_all(stream, b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if &answer == b"ping" { Ok(()) } else { Err(io::Error::other("another answer")) }
}
