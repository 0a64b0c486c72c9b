//! The pool: who shares a tunnel, who does not, and when tunnels go.

mod common;

use common::{Wire, echo, serve, wire, worker};
use hbone::pool::{Checkout, Limits};
use hbone::{Accepted, Driver, Pool, Settings, Tunnel, client};
use http::HeaderMap;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
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
fn dropping_the_pool_cuts_its_tunnels() {
    worker(false, async {
        let pool = Pool::new(Limits::default());
        let held = Dialer::default().open(&pool, "a").await;

        drop(pool);

        let (_send, mut recv) = held.stream.split();
        assert!(recv.data().await.is_err());
    });
}
