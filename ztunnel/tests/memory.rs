//! Memory of the program: idle, with connections, and after them. The bounds are those of a debug build, where
//! what a connection needs is larger than in a release.

mod pods;
mod program;

use pods::{PATIENCE, Pod, two_pods};
use program::Program;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 2000;
/// Memory that is not of a file: heap and stacks, KiB.
const IDLE_KIB: usize = 4 << 10;
/// No more than Istio's node proxy takes.
const CONNECTION_KIB: usize = 6;
/// More than idle, once all connections have ended.
const KEPT_KIB: usize = 3 << 10;

/// Memory of the process that is not of a file, KiB.
fn anonymous_kib(program: &Program) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", program.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("the kernel says so");
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Waits until no more than `bound` is held; what is held at last.
fn settles(program: &Program, bound: usize) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let held = anonymous_kib(program);
        if held <= bound || Instant::now() > end {
            return held;
        }
        thread::yield_now();
    }
}

/// Answers each connection at once, and keeps it open until its client goes: without a thread for each.
fn greet(listener: TcpListener) {
    thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept() {
            let _ = socket.write_all(b"hello you\n");
            open.push(socket);
            if open.len() > CONNECTIONS {
                open.clear();
            }
        }
    });
}

fn open(client: &Pod) -> TcpStream {
    let mut socket = client.connect("10.77.0.2:8080").unwrap();
    socket.read_exact(&mut [0; 10]).unwrap();
    socket
}

#[test]
fn connections_take_little_memory_and_it_is_given_back_when_they_have_ended() {
    runtime::sys::raise_nofile().unwrap();
    let Some((client, server)) = two_pods("memory") else { return };
    assert!(client.exec("nft flush chain ip istio nat_output"));
    greet(server.listen("0.0.0.0:8080"));
    let program = Program::start(&server, Duration::from_secs(1));
    let end = Instant::now() + PATIENCE;
    while client.connect("10.77.0.2:8080").and_then(|mut s| s.read_exact(&mut [0; 10])).is_err() {
        assert!(Instant::now() < end, "the proxy does not serve");
    }

    let idle = settles(&program, IDLE_KIB);
    let held: Vec<_> = (0..CONNECTIONS).map(|_| open(&client)).collect();
    let full = anonymous_kib(&program);
    drop(held);
    let after = settles(&program, idle + KEPT_KIB);

    println!(
        "idle {idle} KiB, {} bytes for each connection, {after} KiB after them",
        (full - idle) * 1024 / CONNECTIONS
    );
    assert!(idle <= IDLE_KIB, "{idle} KiB idle");
    assert!(full - idle <= CONNECTIONS * CONNECTION_KIB, "{} KiB for {CONNECTIONS} connections", full - idle);
    assert!(after <= idle + KEPT_KIB, "{after} KiB after the connections, {idle} KiB before");
}
