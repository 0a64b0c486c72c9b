//! One proxy hands its pods over to its successor, and no connection fails: those that wait in the old one's listeners,
//! those that are on their way to them, and those that are open.

mod pods;

use pods::{PATIENCE, Pod, Proxy, echo_server, state, two_pods};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const HANDOVERS: usize = 8;
/// Connections between two hand-overs.
const BETWEEN: usize = 100;

/// A connection that says something and hears it back.
fn whole(client: &Pod) -> io::Result<()> {
    let mut socket = client.connect("10.77.0.2:8080")?;
    let mut answer = [0; 15];
    socket.write_all(b"hello")?;
    socket.read_exact(&mut answer)?;
    if answer.ends_with(b"hello") { Ok(()) } else { Err(io::Error::other(format!("{answer:?}"))) }
}

#[test]
fn no_connection_fails_while_one_proxy_hands_over_to_the_next() {
    let Some((client, server)) = two_pods("handover") else { return };
    let client = Arc::new(client);
    echo_server(server.listen("0.0.0.0:8080"));
    let state = state(&client, &server, "HBONE");
    let mut proxy = Proxy::start(state.clone(), &[&client, &server]);
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, over, done) = (client.clone(), over.clone(), done.clone());
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    failed.extend(whole(&client).err());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        })
        .collect();

    for _ in 0..HANDOVERS {
        let next = Proxy::start(state.clone(), &[&client, &server]);
        let old = std::mem::replace(&mut proxy, next);
        wait_for(&done, BETWEEN);
        old.drain.start(Duration::from_secs(5));
        let workers = old.workers.clone();
        let cut = old.runtime.block_on(async move { workers.threads().drain().await });
        assert_eq!(cut, 0, "connections were cut");
        wait_for(&done, BETWEEN);
    }
    over.store(true, Ordering::Relaxed);

    let failed: Vec<_> = load.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), done.load(Ordering::Relaxed));
}

fn wait_for(done: &AtomicUsize, more: usize) {
    let (from, end) = (done.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while done.load(Ordering::Relaxed) < from + more {
        assert!(Instant::now() < end, "connections stand still");
        thread::yield_now();
    }
}
