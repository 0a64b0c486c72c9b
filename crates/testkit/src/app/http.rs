//! As much of HTTP/1.1 as tests need: GET with keep-alive. The answer says whom the server saw.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::LazyLock,
};

use parking_lot::Mutex;

use super::server;

/// Answers GETs until the client closes.
///
/// # Errors
/// Those of the socket.
pub fn serve(stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let local = stream.local_addr()?;
    let mut reader = BufReader::new(stream);
    while let Some(path) = read_request(&mut reader)? {
        // Counted before the answer is sent, so that a client that has its answer is in the number.
        let known = hit(&path);
        let (status, body) = match path.strip_prefix("/result/").map(server::result) {
            // A server that fails, for those who try again.
            _ if path.starts_with("/unavailable") => ("503 Service Unavailable", "unavailable\n".to_owned()),
            _ if path.starts_with("/hits/") => ("200 OK", known.to_string()),
            Some(None) => ("404 Not Found", "no result\n".to_owned()),
            Some(Some(result)) => ("200 OK", result),
            None => (
                "200 OK",
                format!("peer={} local={} path={path}\n", peer.ip().to_canonical(), local.ip().to_canonical()),
            ),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        reader.get_mut().write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

/// Counts a request for `/path`; for `/hits/path`, says how many there were.
fn hit(path: &str) -> u64 {
    static HITS: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);
    let mut hits = HITS.lock();
    match path.strip_prefix("/hits") {
        Some(asked) => hits.get(asked).copied().unwrap_or_default(),
        None => {
            let count = hits.entry(path.to_owned()).or_default();
            *count += 1;
            *count
        }
    }
}

/// The path of the next request; `None` at the end.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        // Headers are skipped: a GET of these tests has no body.
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    Ok(Some(first.split(' ').nth(1).unwrap_or("/").to_owned()))
}

/// One GET over an open connection, with further headers (`name: value`): status and body.
///
/// # Errors
/// Those of the socket, or when the answer is no HTTP.
pub fn get(reader: &mut BufReader<TcpStream>, host: &str, path: &str, headers: &[String]) -> io::Result<(u16, String)> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    reader.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").as_bytes())?;
    let mut status = String::new();
    if reader.read_line(&mut status)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer"));
    }
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let code = status.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(bad)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(|_| bad())?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
