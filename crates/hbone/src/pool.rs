//! Tunnels that are kept to be used again. The pool does not know how to dial; the caller passes that in.
//!
//! A pool belongs to one worker and one pod: dropping it cuts its tunnels.

use crate::stream::StreamPermit;
use crate::{Accepted, ConnectError, Driver, Tunnel, TunnelError};
use http::HeaderMap;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Number of streams on one tunnel; the peer may allow fewer.
    pub streams: usize,
    /// Time after which a tunnel without a new stream is dropped.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 100, idle: Duration::from_secs(300) }
    }
}

/// Tunnels by key. `K` must hold everything that makes two tunnels different: own identity, expected
/// identities, address, and own address; equality is checked in full. `E` is how a dial fails.
pub struct Pool<K, E> {
    inner: Rc<Inner<K, E>>,
}

struct Inner<K, E> {
    limits: Limits,
    slots: RefCell<HashMap<K, Rc<Slot<E>>>>,
    tasks: RefCell<JoinSet<()>>,
    reaping: Cell<bool>,
}

struct Slot<E> {
    tunnels: RefCell<Vec<Pooled>>,
    dialing: Cell<bool>,
    /// Number of dials begun so far, which identifies the one that somebody waits for.
    dials: Cell<u64>,
    failure: RefCell<Option<(u64, E)>>,
    done: Notify,
}

struct Pooled {
    tunnel: Tunnel,
    used: Cell<Instant>,
}

/// A tunnel with a permit for one stream on it.
#[derive(Debug)]
pub struct Checkout {
    /// Tunnel on which to open the stream.
    pub tunnel: Tunnel,
    /// The tunnel was in the pool already.
    pub reused: bool,
    permit: Rc<StreamPermit>,
}

impl Checkout {
    /// Opens the stream.
    pub async fn connect(self, authority: &str, headers: HeaderMap) -> Result<Accepted, ConnectError> {
        self.tunnel.connect_with(self.permit, authority, headers).await
    }
}

impl<K: Hash + Eq + Clone + 'static, E: Clone + 'static> Pool<K, E> {
    /// An empty pool. Must be used inside a `LocalSet`.
    pub fn new(limits: Limits) -> Self {
        let inner = Inner { limits, slots: RefCell::default(), tasks: RefCell::default(), reaping: Cell::new(false) };
        Self { inner: Rc::new(inner) }
    }

    /// Returns a tunnel for `key` with room for one more stream: one of the pool, or the result of `dial`.
    ///
    /// There is one dial at a time for a key. Callers that came during a dial share its tunnel while that
    /// has room, and its failure.
    pub async fn checkout<D, F, T>(&self, key: &K, dial: D) -> Result<Checkout, E>
    where
        D: FnOnce() -> F,
        F: Future<Output = Result<(Tunnel, Driver<T>), E>>,
        T: AsyncBufRead + AsyncWrite + Unpin + 'static,
    {
        let slot = loop {
            // Look it up each time: a drain during the wait has removed the slot.
            let slot = self.inner.slot(key);
            if let Some(found) = slot.checkout(self.inner.limits.streams) {
                return Ok(found);
            }
            // One dial for a key at a time: a burst of 200 connections to a new peer makes one tunnel, not 200
            // handshakes.
            if !slot.dialing.replace(true) {
                break slot;
            }
            let awaited = slot.dials.get();
            let mut done = pin!(slot.done.notified());
            // Registered before the first await: a dial that ends at once must not be missed.
            done.as_mut().enable();
            done.await;
            // Only the failure of the dial that was waited for: an older one says nothing about this attempt.
            if let Some((_, e)) = slot.failure.borrow().as_ref().filter(|(dial, _)| *dial == awaited) {
                return Err(e.clone());
            }
        };
        slot.dials.set(slot.dials.get() + 1);
        // Ends the dial also when this future is dropped, as it is when the client gives up.
        let dialing = Dialing { inner: &self.inner, key, slot: &slot };
        let (tunnel, driver) = dial().await.inspect_err(|e| {
            slot.failure.replace(Some((slot.dials.get(), e.clone())));
        })?;
        self.inner.tasks.borrow_mut().spawn_local(drive(driver));
        let permit = tunnel.reserve();
        // After a drain the tunnel serves this caller and is not kept.
        if self.inner.holds(key, &slot) {
            slot.tunnels.borrow_mut().push(Pooled { tunnel: tunnel.clone(), used: Cell::new(Instant::now()) });
            self.reap_later();
        }
        drop(dialing);
        Ok(Checkout { tunnel, reused: false, permit })
    }

    /// Number of keys with tunnels, or with a dial in progress.
    pub fn keys(&self) -> usize {
        self.inner.slots.borrow().len()
    }

    /// Number of tunnels, in use or not.
    pub fn len(&self) -> usize {
        self.inner.slots.borrow().values().map(|s| s.tunnels.borrow().len()).sum()
    }

    /// Returns whether there is no tunnel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tunnels: each closes when its last stream has ended. The tunnel of a dial in progress serves
    /// its caller and is not kept.
    pub fn drain(&self) {
        self.inner.slots.borrow_mut().clear();
    }

    fn reap_later(&self) {
        if !self.inner.reaping.replace(true) {
            let weak = Rc::downgrade(&self.inner);
            self.inner.tasks.borrow_mut().spawn_local(reap(weak, self.inner.limits.idle));
        }
    }
}

impl<K: Hash + Eq + Clone, E> Inner<K, E> {
    fn slot(&self, key: &K) -> Rc<Slot<E>> {
        if let Some(slot) = self.slots.borrow().get(key) {
            return slot.clone();
        }
        let slot = Rc::new(Slot {
            tunnels: RefCell::default(),
            dialing: Cell::new(false),
            dials: Cell::new(0),
            failure: RefCell::new(None),
            done: Notify::new(),
        });
        self.slots.borrow_mut().insert(key.clone(), slot.clone());
        slot
    }

    /// Returns whether `slot` is still the slot of `key`.
    fn holds(&self, key: &K, slot: &Rc<Slot<E>>) -> bool {
        self.slots.borrow().get(key).is_some_and(|held| Rc::ptr_eq(held, slot))
    }

    /// Drops tunnels that are idle or broken. Returns whether no key is left.
    fn reap(&self) -> bool {
        // Drivers that have ended, or their results would pile up in the set.
        while self.tasks.borrow_mut().try_join_next().is_some() {}
        let now = Instant::now();
        let mut slots = self.slots.borrow_mut();
        slots.retain(|_, slot| {
            let fresh = |p: &Pooled| now.duration_since(p.used.get()) < self.limits.idle && p.tunnel.is_usable();
            slot.tunnels.borrow_mut().retain(fresh);
            // A caller that dials or waits still holds the slot, and looks into it again.
            Rc::strong_count(slot) > 1 || !slot.tunnels.borrow().is_empty()
        });
        slots.is_empty()
    }
}

impl<E> Slot<E> {
    /// Checks out the fullest tunnel that has room, so that the others can become idle. Without one, a tunnel whose
    /// peer takes no streams for now: another tunnel to it would take none either. Drops broken ones.
    fn checkout(&self, limit: usize) -> Option<Checkout> {
        let mut tunnels = self.tunnels.borrow_mut();
        // Their streams go on: each holds its connection.
        tunnels.retain(|p| p.tunnel.is_usable());
        // Fullest first: the others become idle, and are dropped after 5 minutes.
        let roomy = tunnels.iter().filter(|p| p.tunnel.has_room(limit)).max_by_key(|p| p.tunnel.open_streams());
        let best = roomy.or_else(|| tunnels.iter().find(|p| p.tunnel.is_paused()))?;
        best.used.set(Instant::now());
        Some(Checkout { tunnel: best.tunnel.clone(), reused: true, permit: best.tunnel.reserve() })
    }
}

/// Ends a dial when it is dropped, whatever its result.
struct Dialing<'a, K: Hash + Eq + Clone, E> {
    inner: &'a Inner<K, E>,
    key: &'a K,
    slot: &'a Rc<Slot<E>>,
}

impl<K: Hash + Eq + Clone, E> Drop for Dialing<'_, K, E> {
    fn drop(&mut self) {
        self.slot.dialing.set(false);
        // Keep nothing for a key that cannot be dialled. Callers that waited hold the slot and find the failure there.
        if self.slot.tunnels.borrow().is_empty() && self.inner.holds(self.key, self.slot) {
            self.inner.slots.borrow_mut().remove(self.key);
        }
        self.slot.done.notify_waiters();
    }
}

async fn drive<T: AsyncBufRead + AsyncWrite + Unpin>(driver: Driver<T>) {
    match driver.await {
        Ok(()) => tracing::debug!("tunnel closed"),
        Err(e @ TunnelError::PingTimeout(_)) => {
            tracing::warn!(error = %e, code = e.code(), "tunnel lost: the peer does not answer")
        }
        Err(e) if e.flood().is_some() => {
            tracing::warn!(error = %e, code = e.code(), "closed a tunnel whose peer floods it");
        }
        Err(e) => tracing::debug!(error = %e, code = e.code(), "tunnel failed"),
    }
}

async fn reap<K: Hash + Eq + Clone, E>(pool: Weak<Inner<K, E>>, idle: Duration) {
    // A tunnel is dropped at most a quarter of `idle` late.
    let pause = (idle / 4).max(Duration::from_millis(100));
    loop {
        tokio::time::sleep(pause).await;
        // A weak reference: the pool may be dropped, and its tunnels with it, while this task sleeps.
        let Some(inner) = pool.upgrade() else { return };
        if inner.reap() {
            inner.reaping.set(false);
            return;
        }
    }
}

impl<K, E> fmt::Debug for Pool<K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("keys", &self.inner.slots.borrow().len()).finish()
    }
}
