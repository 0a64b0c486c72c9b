//! Many bytes in one or both directions, checked at the receiver. Who sends them through is not its matter.
//!
//! A connection begins with 16 bytes of the client: seed and length, big endian.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

use super::pattern::{BLOCK, expect, expect_end, send};

/// Added to the client's seed for the bytes that the server sends.
const OTHER_WAY: u64 = 0x5eed;

/// Answer of a sink that has received everything.
const WHOLE: &str = "whole";

fn read_header(stream: &mut TcpStream) -> io::Result<(u64, u64)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header)?;
    let (seed, length) = header.split_at(8);
    let number = |b: &[u8]| b.iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
    Ok((number(seed), number(length)))
}

/// Asks a source for bytes, and reads none.
///
/// # Errors
/// Those of the socket.
pub fn ask(stream: &mut TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    write_header(stream, seed, bytes)
}

fn write_header(stream: &mut TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    let mut header = seed.to_be_bytes().to_vec();
    header.extend(bytes.to_be_bytes());
    stream.write_all(&header)
}

fn verdict(result: io::Result<()>) -> String {
    match result {
        Ok(()) => WHOLE.to_owned(),
        Err(err) => err.to_string(),
    }
}

/// Takes the pattern and the client's FIN, answers with a verdict.
///
/// # Errors
/// Those of the socket.
pub fn serve_sink(mut stream: TcpStream) -> io::Result<()> {
    let (seed, bytes) = read_header(&mut stream)?;
    // The end counts as well: a proxy that passes all bytes and loses the FIN has cut the half-close.
    let result = expect(&mut stream, seed, bytes).and_then(|()| expect_end(&mut stream));
    // Sent after the client's FIN: a proxy that closes both directions at once would lose it.
    stream.write_all(verdict(result).as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// Sends the pattern and FIN, waits for the client's.
///
/// # Errors
/// Those of the socket.
pub fn serve_source(mut stream: TcpStream) -> io::Result<()> {
    let (seed, bytes) = read_header(&mut stream)?;
    // Another pattern than the client's: bytes that come back by mistake must not pass as the answer.
    send(&mut stream, seed ^ OTHER_WAY, bytes)?;
    stream.shutdown(Shutdown::Write)?;
    expect_end(&mut stream)
}

/// Sends and takes at once; the verdict follows the pattern.
///
/// # Errors
/// Those of the socket.
pub fn serve_duplex(mut stream: TcpStream) -> io::Result<()> {
    let (seed, bytes) = read_header(&mut stream)?;
    // Both directions at once, each on a thread of its own: one that waited for the other would stop as soon as the
    // buffers in between are full.
    let mut input = stream.try_clone()?;
    let reader = thread::spawn(move || expect(&mut input, seed, bytes).and_then(|()| expect_end(&mut input)));
    send(&mut stream, seed ^ OTHER_WAY, bytes)?;
    let result = reader.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
    stream.write_all(verdict(result).as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

fn read_verdict(stream: &mut TcpStream) -> io::Result<()> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text == WHOLE { Ok(()) } else { Err(io::Error::other(format!("the server got: {text:?}"))) }
}

/// The client of `serve_sink`.
///
/// # Errors
/// Those of the socket, or what the server found wrong.
pub fn upload(mut stream: TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    write_header(&mut stream, seed, bytes)?;
    send(&mut stream, seed, bytes)?;
    stream.shutdown(Shutdown::Write)?;
    read_verdict(&mut stream)
}

/// The client of `serve_source`.
///
/// # Errors
/// Those of the socket, or what is wrong with the bytes.
pub fn download(mut stream: TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    write_header(&mut stream, seed, bytes)?;
    expect(&mut stream, seed ^ OTHER_WAY, bytes)?;
    expect_end(&mut stream)
}

/// The client of `serve_duplex`.
///
/// # Errors
/// Those of the socket, or what is wrong with the bytes of either direction.
pub fn duplex(mut stream: TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    write_header(&mut stream, seed, bytes)?;
    let mut out = stream.try_clone()?;
    // On its own thread, or both ends would write into full buffers and wait for each other.
    let writer = thread::spawn(move || send(&mut out, seed, bytes).and_then(|()| out.shutdown(Shutdown::Write)));
    expect(&mut stream, seed ^ OTHER_WAY, bytes)?;
    writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))?;
    read_verdict(&mut stream)
}

/// As `download`, but says `started` once the first block has come, and how the connection ended.
///
/// # Errors
/// Only when it does not begin.
pub fn watch(mut stream: TcpStream, seed: u64, bytes: u64) -> io::Result<String> {
    write_header(&mut stream, seed, bytes)?;
    let mut first = vec![0; BLOCK];
    stream.read_exact(&mut first)?;
    // A test that waits for this word knows that the connection is established from end to end before it changes
    // something.
    println!("started");
    Ok(match io::copy(&mut stream, &mut io::sink()) {
        Ok(n) => format!("end after {} bytes", n + BLOCK as u64),
        Err(err) => format!("{:?}", err.kind()),
    })
}
