//! Many tunnels with odd sizes, whose streams end in every way, and none of which may stand still.

mod common;

use common::{Wire, pattern, serve, tunnel, worker};
use hbone::{Reason, RecvHalf, SendHalf, Settings};
use http::{HeaderMap, StatusCode};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::duplex;
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

/// Tunnels that one run makes, each with a throw of its own.
const TUNNELS: u64 = 60;

/// The same numbers in each run.
#[derive(Clone)]
struct Dice(Rc<Cell<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        let dice = Self(Rc::new(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)));
        // Small seeds begin alike.
        for _ in 0..5 {
            dice.below(2);
        }
        dice
    }

    fn below(&self, n: usize) -> usize {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) as usize % n
    }

    async fn pause(&self) {
        for _ in 0..self.below(4) {
            yield_now().await;
        }
    }
}

/// Sends all, or stops with or without a reset.
async fn sends(mut send: SendHalf, dice: Dice, n: usize, seed: usize) {
    let mut all = pattern(n, seed);
    let stop = if dice.below(5) == 0 { dice.below(n + 1) } else { usize::MAX };
    let mut sent = 0;
    while !all.is_empty() {
        let piece = all.split_to((1 + dice.below(20_000)).min(all.len()));
        sent += piece.len();
        if send.send(piece).await.is_err() {
            return;
        }
        if sent > stop {
            if dice.below(2) == 0 {
                send.reset(Reason::Cancel);
            }
            return;
        }
        dice.pause().await;
    }
    let _ = send.finish();
    if dice.below(2) == 0 {
        drop(send);
    } else {
        dice.pause().await;
    }
}

/// Takes what comes: what was cut must not look whole.
async fn receives(mut recv: RecvHalf, dice: Dice, n: usize, seed: usize) {
    let expected = pattern(n, seed);
    let mut at = 0;
    loop {
        match recv.data().await {
            Ok(Some(piece)) => {
                assert!(expected[at..].starts_with(&piece));
                at += piece.len();
                dice.pause().await;
                recv.release(piece.len());
            }
            Ok(None) => {
                assert_eq!(at, n, "cut, and told as an end");
                return;
            }
            Err(_) => return,
        }
    }
}

#[test]
fn tunnels_of_odd_sizes_never_stand_still_and_end_in_order() {
    for seed in 0..TUNNELS {
        worker(false, async move {
            let dice = Dice::new(seed);
            let settings = |dice: &Dice| Settings {
                stream_window_bytes: [10, 300, 1000, 70_000, 200_000][dice.below(5)],
                connection_window_bytes: [1, 65_535, 100_000, 1 << 20][dice.below(4)],
                max_concurrent_streams: 1 + dice.below(6) as u32,
                initial_streams: 1 + dice.below(6),
                send_buffer_bytes: [50, 1000, 100_000][dice.below(3)],
                // No PING wakes what has been forgotten.
                ping_interval: Duration::from_secs(3600),
                ping_timeout: Duration::from_secs(3600),
                ..Settings::default()
            };
            let (a, b) = duplex([100, 1000, 50_000][dice.below(3)]);
            let size = [300, 3000, 30_000][dice.below(3)];
            let failed = Rc::new(Cell::new(false));
            let (d, fails) = (dice.clone(), failed.clone());
            let server = serve(Wire::new(b), settings(&dice), move |mut r| {
                let (d, failed) = (d.clone(), fails.clone());
                async move {
                    d.pause().await;
                    match d.below(12) {
                        0 => return drop(r),
                        1 => return r.refuse(StatusCode::FORBIDDEN),
                        2 => {
                            let _ = timeout(Duration::from_millis(1), r.closed()).await;
                        }
                        _ => {}
                    }
                    let Some(stream) = r.accept(HeaderMap::new()) else { return };
                    let (send, recv) = stream.split();
                    let (s, t) =
                        (spawn_local(sends(send, d.clone(), size, 3)), spawn_local(receives(recv, d, size, 5)));
                    // A panic here is nobody's.
                    if s.await.is_err() | t.await.is_err() {
                        failed.set(true);
                    }
                }
            });
            let (tunnel, driver) = tunnel(Wire::new(a), &settings(&dice));
            let all: Vec<_> = (0..25)
                .map(|_| {
                    let (tunnel, d) = (tunnel.clone(), dice.clone());
                    spawn_local(async move {
                        d.pause().await;
                        let connect = tunnel.connect("a:1", HeaderMap::new());
                        let answer = if d.below(8) == 0 {
                            match timeout(Duration::from_micros(d.below(3000) as u64), connect).await {
                                Ok(answer) => answer,
                                Err(_) => return,
                            }
                        } else {
                            connect.await
                        };
                        let Ok(answer) = answer else { return };
                        let (send, recv) = answer.stream.split();
                        let s = spawn_local(sends(send, d.clone(), size, 5));
                        let t = spawn_local(receives(recv, d, size, 3));
                        s.await.unwrap();
                        t.await.unwrap();
                    })
                })
                .collect();
            for one in all {
                timeout(Duration::from_secs(30), one).await.unwrap_or_else(|_| panic!("{seed} stands still")).unwrap();
            }
            drop(tunnel);
            let closed =
                timeout(Duration::from_secs(10), driver).await.unwrap_or_else(|_| panic!("{seed} does not close"));
            assert!(closed.unwrap().is_ok(), "{seed}");
            assert!(timeout(Duration::from_secs(10), server).await.unwrap().unwrap(), "{seed}");
            assert!(!failed.get(), "{seed}");
        });
    }
}
