//! Measures the speed of a path: bulk, small requests on connections that stay, new connections. Nothing is checked here beyond that
//! it arrived; for that see `bulk`. Blocking threads, one per connection, and no work but the system calls: what they can
//! do beside a path that costs nothing is several times what a mesh can.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Measure, MeasureArgs};

/// Bytes of one write.
const BLOCK: usize = 128 * 1024;

/// Longest wait for a peer: one that is slower is an error and no figure.
const DEADLINE: Duration = Duration::from_secs(30);

const REQUEST: &[u8] = b"GET /order/1 HTTP/1.1\r\nhost: bench\r\nuser-agent: strake-testapp\r\naccept: */*\r\n\r\n";
const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

/// 128 bytes of payload behind a head.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 128\r\n\r\n\
    ................................................................................................................................";

/// Measures what `args` say and prints one line of JSON; the exit code.
pub fn run(args: &MeasureArgs) -> i32 {
    let report = match args.what {
        Measure::Bulk => bulk(args),
        Measure::Requests => paced(args, requests),
        Measure::Connections => paced(args, connections),
    };
    let report = report.unwrap_or_else(|err| json!({ "error": err.to_string(), "kind": format!("{:?}", err.kind()) }));
    println!("{report}");
    i32::from(report.get("error").is_some())
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    // Deadlines on each call, so that a path that hangs is an error and not an endless measurement.
    let stream = TcpStream::connect_timeout(&target, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Runs `work` on as many threads as `args` say; the first error counts for all.
fn on_threads<T: Send>(args: &MeasureArgs, work: impl Fn() -> io::Result<T> + Sync) -> io::Result<Vec<T>> {
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.parallel {
            scope.spawn(|| {
                let result = work();
                results.lock().push(result);
            });
        }
    });
    results.into_inner().into_iter().collect()
}

/// Sends for the time given, then waits until the server has counted everything: both count into the rate.
fn bulk(args: &MeasureArgs) -> io::Result<Value> {
    // All connections are open before the first byte is sent: otherwise the time of a slow handshake would count as
    // time of transfer.
    let begin = Barrier::new(args.parallel as usize);
    let streams = on_threads(args, || {
        let stream = connect(args.target);
        // also without a connection: the others wait
        begin.wait();
        let (mut stream, begun) = (stream?, Instant::now());
        let block = vec![0x5a; BLOCK];
        while begun.elapsed() < args.duration() {
            stream.write_all(&block)?;
        }
        stream.shutdown(Shutdown::Write)?;
        // Without the server's count the rate would include what still lies in buffers on the way.
        let mut counted = [0; 8];
        stream.read_exact(&mut counted)?;
        Ok((u64::from_be_bytes(counted), begun.elapsed()))
    })?;
    let bytes: u64 = streams.iter().map(|(bytes, _)| bytes).sum();
    // The slowest stream: the rate is that of all together.
    let seconds = streams.iter().map(|(_, took)| took.as_secs_f64()).fold(0.0, f64::max);
    Ok(json!({ "bytes": bytes, "seconds": seconds, "per_second": bytes as f64 * 8e-9 / seconds }))
}

/// Rounds of `work` on each thread for the time given: how many per second, and how long they took.
fn paced(args: &MeasureArgs, work: fn(&MeasureArgs, Instant) -> io::Result<Vec<Duration>>) -> io::Result<Value> {
    let begun = Instant::now();
    let mut rounds: Vec<_> = on_threads(args, || work(args, begun + args.duration()))?
        .into_iter()
        .flatten()
        .map(|d| d.as_micros())
        .collect();
    let seconds = begun.elapsed().as_secs_f64();
    rounds.sort_unstable();
    let at = |percent: usize| rounds.get(rounds.len() * percent / 100).copied().unwrap_or_default() as u64;
    let per_second = rounds.len() as f64 / seconds;
    Ok(
        json!({ "count": rounds.len(), "seconds": seconds, "per_second": per_second, "p50_us": at(50), "p99_us": at(99) }),
    )
}

fn requests(args: &MeasureArgs, end: Instant) -> io::Result<Vec<Duration>> {
    let mut stream = connect(args.target)?;
    let mut rounds = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        ask(&mut stream)?;
        rounds.push(begun.elapsed());
    }
    Ok(rounds)
}

fn connections(args: &MeasureArgs, end: Instant) -> io::Result<Vec<Duration>> {
    let mut rounds = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        ask(&mut connect(args.target)?)?;
        rounds.push(begun.elapsed());
    }
    Ok(rounds)
}

fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    stream.read_exact(&mut [0; ANSWER.len()])
}

/// Reads to the client's FIN and says how many bytes came, as 8 bytes, big endian.
///
/// # Errors
/// Those of the socket.
pub fn serve_discard(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut bytes) = (vec![0; BLOCK], 0u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    stream.write_all(&bytes.to_be_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// Answers every request with the same 128 bytes until the client closes.
///
/// # Errors
/// Those of the socket.
pub fn serve_answers(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut have) = ([0; 1024], 0);
    loop {
        match stream.read(&mut buffer[have..])? {
            0 => return Ok(()),
            n => have += n,
        }
        // a client waits for its answer: nothing follows the end of a request
        // A request may arrive in pieces.
        if buffer[..have].ends_with(END_OF_REQUEST) {
            stream.write_all(ANSWER)?;
            have = 0;
        } else if have == buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn served(what: Measure, handler: fn(TcpStream) -> io::Result<()>) -> Value {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let args = MeasureArgs { what, target: listener.local_addr().unwrap(), parallel: 2, milliseconds: 50 };
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || handler(stream.unwrap()));
            }
        });
        match what {
            Measure::Bulk => bulk(&args),
            Measure::Requests => paced(&args, requests),
            Measure::Connections => paced(&args, connections),
        }
        .unwrap()
    }

    #[test]
    fn what_the_server_counted_is_the_bulk() {
        let report = served(Measure::Bulk, serve_discard);

        assert!(report["bytes"].as_u64() > Some(0) && report["per_second"].as_f64() > Some(0.0), "{report}");
    }

    #[test]
    fn requests_and_connections_are_counted_with_their_times() {
        for what in [Measure::Requests, Measure::Connections] {
            let report = served(what, serve_answers);

            assert!(report["count"].as_u64() > Some(0) && report["p99_us"].as_u64() >= report["p50_us"].as_u64());
        }
        assert!(ANSWER.ends_with(&[b'.'; 128]) && !ANSWER.ends_with(&[b'.'; 129]));
    }

    #[test]
    fn a_path_that_is_closed_is_an_error_and_no_figure() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for what in [Measure::Bulk, Measure::Requests, Measure::Connections] {
            let args = MeasureArgs { what, target: closed, parallel: 2, milliseconds: 50 };

            assert_eq!(run(&args), 1);
        }
    }
}
