//! The pool: who shares a tunnel, who does not, and when tunnels go.

mod common;

use common::frames::{self, END_HEADERS, HEADERS, OK, PREFACE, SETTINGS, frame};
use common::{Wire, echo, serve, wire, worker};
use hbone::pool::{Checkout, Limits};
use hbone::{Accepted, ConnectError, Driver, Pool, Settings, Tunnel, client};
use http::HeaderMap;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

type Dialled = Result<(Tunnel, Driver<Wire>), &'static str>;

/// Dials echo servers in memory and counts.
#[derive(Clone, Default)]
struct Dialer {
    dials: Rc<Cell<usize>>,
    fails: Rc<Cell<bool>>,
}

impl Dialer {
    async fn dial(self) -> Dialled {
        self.dials.set(self.dials.get() + 1);
        tokio::task::yield_now().await;
        if self.fails.get() {
            return Err("refused");
        }
        let (near, far) = wire();
        serve(far, Settings::default(), |r| echo(r.accept(HeaderMap::new()).unwrap()));
        Ok(client::start(near, &Settings::default()))
    }

    async fn checkout(
        &self,
        pool: &Pool<&'static str, &'static str>,
        key: &'static str,
    ) -> Result<Checkout, &'static str> {
        pool.checkout(&key, || self.clone().dial()).await
    }

    async fn open(&self, pool: &Pool<&'static str, &'static str>, key: &'static str) -> Accepted {
        self.checkout(pool, key).await.unwrap().connect("10.0.0.1:80", HeaderMap::new()).await.unwrap()
    }
}

#[test]
fn one_tunnel_serves_all_streams_of_a_key_up_to_the_limit() {
    worker(false, async {
        let pool = Pool::new(Limits { streams: 3, ..Limits::default() });
        let dialer = Dialer::default();

        let mut held = Vec::new();
        for _ in 0..7 {
            held.push(dialer.open(&pool, "a").await);
        }

        assert_eq!((dialer.dials.get(), pool.len()), (3, 3));
        held.clear();
        held.push(dialer.open(&pool, "a").await);
        assert_eq!(dialer.dials.get(), 3);
    });
}

#[test]
fn keys_never_share() {
    worker(false, async {
        let pool = Pool::new(Limits::default());
        let dialer = Dialer::default();

        let _a = dialer.open(&pool, "a").await;
        let _b = dialer.open(&pool, "b").await;

        assert_eq!(dialer.dials.get(), 2);
    });
}

#[test]
fn many_at_once_wait_for_one_dial() {
    worker(false, async {
        let pool = Rc::new(Pool::new(Limits::default()));
        let dialer = Dialer::default();

        let all: Vec<_> = (0..50)
            .map(|_| {
                let (pool, dialer) = (pool.clone(), dialer.clone());
                spawn_local(async move { dialer.open(&pool, "a").await })
            })
            .collect();
        let mut held = Vec::new();
        for one in all {
            held.push(one.await.unwrap());
        }

        assert_eq!(dialer.dials.get(), 1);
    });
}

#[test]
fn a_failed_dial_is_told_to_all_who_waited_and_the_next_dials_again() {
    worker(false, async {
        let pool = Rc::new(Pool::new(Limits::default()));
        let dialer = Dialer::default();
        dialer.fails.set(true);

        let all: Vec<_> = (0..20)
            .map(|_| {
                let (pool, dialer) = (pool.clone(), dialer.clone());
                spawn_local(async move { dialer.checkout(&pool, "a").await.err() })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Some("refused"));
        }

        assert_eq!(dialer.dials.get(), 1);
        dialer.fails.set(false);
        let _a = dialer.open(&pool, "a").await;
        assert_eq!(dialer.dials.get(), 2);
    });
}

#[test]
fn an_idle_tunnel_goes_and_one_in_use_lives_on() {
    worker(true, async {
        let pool = Pool::new(Limits::default());
        let dialer = Dialer::default();
        let busy = dialer.open(&pool, "busy").await;
        drop(dialer.open(&pool, "idle").await);

        tokio::time::sleep(Duration::from_secs(700)).await;

        assert!(pool.is_empty());
        let (mut send, mut recv) = busy.stream.split();
        send.send("still".into()).await.unwrap();
        assert_eq!(recv.data().await.unwrap().unwrap(), "still");
    });
}

#[test]
fn a_broken_tunnel_is_replaced() {
    worker(false, async {
        let pool = Pool::new(Limits::default());
        let dialer = Dialer::default();
        let lost = Rc::new(Cell::new(None));
        let first = pool
            .checkout(&"a", || async {
                let (near, far) = wire();
                lost.set(Some(far));
                Ok(client::start(near, &Settings::default()))
            })
            .await
            .unwrap();
        drop(lost.take());
        while first.tunnel.is_usable() {
            tokio::task::yield_now().await;
        }

        let _second = dialer.open(&pool, "a").await;

        assert_eq!((dialer.dials.get(), pool.len()), (1, 1));
    });
}

#[test]
fn a_tunnel_whose_dial_ends_after_a_drain_serves_its_dialler_and_nobody_else() {
    worker(false, async {
        let pool = Rc::new(Pool::new(Limits::default()));
        let dialer = Dialer::default();
        let both: Vec<_> = (0..2)
            .map(|_| {
                let (pool, dialer) = (pool.clone(), dialer.clone());
                spawn_local(async move { dialer.open(&pool, "a").await })
            })
            .collect();
        while dialer.dials.get() == 0 {
            tokio::task::yield_now().await;
        }

        pool.drain();
        let mut held = Vec::new();
        for one in both {
            held.push(one.await.unwrap());
        }

        // The second waited for the first, and dials for the pool as it is now.
        assert_eq!((dialer.dials.get(), pool.len()), (2, 1));
        let _third = dialer.open(&pool, "a").await;
        assert_eq!(dialer.dials.get(), 2);
        let (mut send, mut recv) = held.remove(0).stream.split();
        send.send("still".into()).await.unwrap();
        assert_eq!(recv.data().await.unwrap().unwrap(), "still");
    });
}

#[test]
fn a_dial_that_takes_longer_than_tunnels_are_kept_is_shared() {
    worker(true, async {
        let pool = Rc::new(Pool::new(Limits { idle: Duration::from_secs(1), ..Limits::default() }));
        let dialer = Dialer::default();
        drop(dialer.open(&pool, "other").await);
        let first = spawn_local({
            let (pool, dialer) = (pool.clone(), dialer.clone());
            async move {
                let slow = || async {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    dialer.clone().dial().await
                };
                pool.checkout(&"a", slow).await.unwrap()
            }
        });

        let _first = first.await.unwrap();
        let second = dialer.checkout(&pool, "a").await.unwrap();

        assert!(second.reused);
        assert_eq!(pool.len(), 1);
    });
}

#[test]
fn a_key_that_cannot_be_dialled_is_not_kept() {
    worker(false, async {
        let pool = Rc::new(Pool::new(Limits::default()));
        let dialer = Dialer::default();
        dialer.fails.set(true);

        let failed = dialer.checkout(&pool, "a").await.err();
        assert_eq!((failed, pool.keys()), (Some("refused"), 0));

        let given_up = spawn_local({
            let pool = pool.clone();
            async move {
                let never = || std::future::pending::<Dialled>();
                pool.checkout(&"b", never).await.map(|_| ())
            }
        });
        while pool.keys() == 0 {
            tokio::task::yield_now().await;
        }
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        assert_eq!(pool.keys(), 0, "a dial that was given up");

        dialer.fails.set(false);
        let _a = dialer.open(&pool, "a").await;
        assert_eq!(pool.keys(), 1);
    });
}

/// A peer by hand that says how many streams it takes, and more of them after a while.
async fn takes_streams_later(mut far: Wire, after: Option<Duration>) {
    let allowed = |streams: u8| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, streams]);
    far.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
    far.write_all(&allowed(0)).await.unwrap();
    if let Some(after) = after {
        tokio::time::sleep(after).await;
        far.write_all(&allowed(100)).await.unwrap();
        let mut next = 1;
        while next <= 5 {
            if let (HEADERS, _, _) = frames::next(&mut far).await.unwrap().unwrap() {
                far.write_all(&frame(HEADERS, END_HEADERS, next, OK)).await.unwrap();
                next += 2;
            }
        }
    }
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
}

#[test]
fn a_peer_that_takes_no_streams_for_now_is_waited_for_on_one_tunnel_and_not_for_ever() {
    for (after, is_answered) in [(Some(Duration::from_secs(5)), true), (None, false)] {
        worker(true, async move {
            let pool = Rc::new(Pool::new(Limits::default()));
            let dials = Rc::new(Cell::new(0));
            let dial = move |dials: Rc<Cell<usize>>| async move {
                dials.set(dials.get() + 1);
                let (near, far) = wire();
                spawn_local(takes_streams_later(far, after));
                let settings = Settings { initial_streams: 0, ..Settings::default() };
                Dialled::Ok(client::start(near, &settings))
            };
            let begin = tokio::time::Instant::now();

            let all: Vec<_> = (0..3)
                .map(|_| {
                    let (pool, dials) = (pool.clone(), dials.clone());
                    spawn_local(async move {
                        let checkout = pool.checkout(&"a", || dial(dials)).await.unwrap();
                        checkout.connect("a:1", HeaderMap::new()).await
                    })
                })
                .collect();
            let mut answers = Vec::new();
            for one in all {
                answers.push(one.await.unwrap());
            }

            assert_eq!(dials.get(), 1);
            for answer in answers {
                match answer {
                    Ok(_) => assert!(is_answered),
                    Err(e) => assert!(!is_answered && matches!(e, ConnectError::NoStreams(_)), "{e}"),
                }
            }
            assert_eq!(begin.elapsed().as_secs(), if is_answered { 5 } else { 10 });
        });
    }
}

#[test]
fn dropping_the_pool_cuts_its_tunnels() {
    worker(false, async {
        let pool = Pool::new(Limits::default());
        let held = Dialer::default().open(&pool, "a").await;

        drop(pool);

        let (_send, mut recv) = held.stream.split();
        assert!(recv.data().await.is_err());
    });
}
