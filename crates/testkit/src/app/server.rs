//! The servers: one thread per connection. What they learn of a connection's end is asked over HTTP (`/result/<id>`).

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::LazyLock,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};

use super::{ANSWERS, DISCARD, DUPLEX, ECHO, HALF_CLOSE, HTTP, RESET, SERVER_FIRST, SINK, SOURCE, bulk, http, measure};

/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_secs(120);

/// Ends of connections, by the id that their client chose.
static RESULTS: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

/// Returns the notes about `id`.
pub fn result(id: &str) -> Option<String> {
    RESULTS.lock().get(id).cloned()
}

fn note(id: &str, text: String) {
    RESULTS.lock().insert(id.to_owned(), text);
}

type Handler = fn(TcpStream) -> io::Result<()>;

/// Runs every server until the process ends.
pub fn run() -> i32 {
    let services: [(u16, Handler); 10] = [
        (ECHO, echo),
        (SERVER_FIRST, server_first),
        (SINK, bulk::serve_sink),
        (SOURCE, bulk::serve_source),
        (DUPLEX, bulk::serve_duplex),
        (RESET, reset),
        (HALF_CLOSE, half_close),
        (DISCARD, measure::serve_discard),
        (ANSWERS, measure::serve_answers),
        (HTTP, http::serve),
    ];
    let mut threads = Vec::new();
    for (port, handler) in services {
        let listener = match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(listener) => listener,
            Err(err) => {
                eprintln!("port {port}: {err}");
                return 1;
            }
        };
        threads.push(thread::spawn(move || serve(port, &listener, handler)));
    }
    println!("ready");
    // A listener's thread ends by a panic only.
    for thread in threads {
        let _ = thread.join();
    }
    1
}

/// A listener on both families with room for a burst of connections.
///
/// # Errors
/// When the port is taken.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        // One listener for both families, whatever `net.ipv6.bindv6only` says on the machine.
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn serve(port: u16, listener: &TcpListener, handler: Handler) {
    for stream in listener.incoming() {
        // An error of one connection (`ECONNABORTED`) is none of the listener.
        let Ok(stream) = stream else { continue };
        thread::spawn(move || {
            let peer = stream.peer_addr().map_or_else(|err| err.to_string(), |peer| peer.to_string());
            // It fails only when the connection is gone, which the handler finds out.
            let _ = stream.set_read_timeout(Some(IDLE));
            let _ = stream.set_nodelay(true);
            if let Err(err) = handler(stream) {
                println!("port {port}, {peer}: {err}");
            }
        });
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    copy_back(&mut stream)?;
    stream.shutdown(Shutdown::Write)
}

fn copy_back(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn server_first(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"220 ready\r\n")?;
    echo(stream)
}

/// First line `rst`: resets. First line `watch ID`: notes how the client ends the connection.
fn reset(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.trim().strip_prefix("watch ") {
        None => abort(reader.into_inner()),
        Some(id) => {
            reader.get_mut().write_all(b"watching\n")?;
            let end = match io::copy(&mut reader, &mut io::sink()) {
                Ok(n) => format!("end after {n} bytes"),
                Err(err) => format!("error: {err}"),
            };
            note(id, end);
            Ok(())
        }
    }
}

/// Closes with RST instead of FIN.
///
/// # Errors
/// When the option cannot be set.
pub fn abort(stream: TcpStream) -> io::Result<()> {
    // A linger time of 0 makes `close` send RST (socket(7)).
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// First line is an id; sends `bye` and FIN, then counts what the client still sends.
fn half_close(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut id = String::new();
    reader.read_line(&mut id)?;
    reader.get_mut().write_all(b"bye\n")?;
    reader.get_mut().shutdown(Shutdown::Write)?;
    let count = io::copy(&mut reader, &mut io::sink())?;
    note(id.trim(), format!("{count} bytes after the end"));
    Ok(())
}
