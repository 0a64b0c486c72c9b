//! Limits on connections to the control plane until their client has proved who it is. It opens and closes no socket: a
//! connection that loses its place finds out by [`Notice::poll_lost`].
//!
//! Anybody on the network can connect, and only a token tells node proxies from others. So a connection holds a place
//! among few until its first request with a good token. It loses the place after a while, or when its address takes too
//! many, or when all places are taken and it is the oldest. Clients with a token need milliseconds and are not
//! affected.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Connections refused or closed for a limit, by reason.
const REFUSED: &str = "strake_control_connections_refused_total";
/// Open connections, by whether their client has proved who it is.
const CONNECTIONS: &str = "strake_control_connections";
/// Pause between two lines of the log about the same limit.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Age from which a connection without a request gives way to a new one. Less is the haste of a client that is just
/// being served: after a restart of the control plane all proxies of a mesh come back at once.
const GIVES_WAY_AFTER: Duration = Duration::from_secs(1);
/// Descriptors that are kept for everything but connections.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of all clients, by default the limit of descriptors less 256.
    pub total: usize,
    /// Connections whose client has not proved who it is: of all addresses.
    pub unproved: usize,
    /// Connections of one address (of one /64 network of IPv6), whoever its clients are.
    pub per_address: usize,
    /// Connections of one address whose client has not proved who it is.
    pub unproved_per_address: usize,
    /// Time from the end of the TLS handshake to the first request with a good token.
    pub first_request: Duration,
}

impl Limits {
    /// Limits for a process that may open so many descriptors; none means as many as it likes.
    #[must_use]
    pub fn with_descriptors(limit: Option<u64>) -> Self {
        let total = limit.map_or(usize::MAX, |limit| {
            // A low limit is shared: half of it at least is for connections.
            usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS).max(limit / 2)).unwrap_or(usize::MAX)
        });
        let unproved = (total / 2).min(1024);
        Self {
            total,
            unproved,
            per_address: (total / 4).min(1024),
            unproved_per_address: 32.min(unproved),
            first_request: Duration::from_secs(10),
        }
    }
}

/// The places. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    total: usize,
    /// By number, so the oldest is first.
    unproved: BTreeMap<u64, Unproved>,
    by_address: HashMap<IpAddr, Held>,
    last_number: u64,
    logged: HashMap<&'static str, Instant>,
}

/// Connections of one address.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    all: usize,
    unproved: usize,
}

#[derive(Debug)]
struct Unproved {
    address: IpAddr,
    since: Instant,
    /// Dropped when the place is taken away.
    _keeps: oneshot::Sender<()>,
}

/// Reason for which a connection is closed before its client is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The process has no room for it.
    #[error("too many connections")]
    Total,
    /// Its address has too many.
    #[error("too many connections of this address")]
    Address,
    /// A newer one has taken the place.
    #[error("too many connections without a request with a good token; this was the oldest")]
    Oldest,
    /// It took too long.
    #[error("no request with a good token in time")]
    Late,
}

impl Lost {
    /// Stable name for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Total => "connections_total",
            Self::Address => "connections_of_address",
            Self::Oldest => "connections_unproved",
            Self::Late => "no_first_request",
        }
    }
}

/// The place of one connection, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Place>);

#[derive(Debug)]
struct Place {
    gate: Gate,
    address: IpAddr,
    number: u64,
    proved: AtomicBool,
}

/// Tells the connection that it has lost its place.
#[derive(Debug)]
pub(super) struct Notice {
    admission: Admission,
    taken: oneshot::Receiver<()>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, places: Mutex::default() }))
    }

    /// A place for a connection that was just accepted.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Notice, Lost> {
        let address = source(peer.ip());
        let limits = self.0.limits;
        let mut places = self.0.places.lock();
        let held = places.by_address.get(&address).copied().unwrap_or_default();
        // The process first, then the address: a full process refuses everybody alike.
        let refused = if places.total >= limits.total {
            Some(Lost::Total)
        } else if held.unproved >= limits.unproved_per_address || held.all >= limits.per_address {
            Some(Lost::Address)
        } else {
            None
        };
        if let Some(lost) = refused {
            places.report(lost, address);
            return Err(lost);
        }
        // Full of clients that have proved nothing: the oldest gives way, if it had time enough, or a flood of silent
        // connections would keep all others out.
        if places.unproved.len() >= limits.unproved {
            let oldest = places.unproved.first_key_value().filter(|(_, held)| held.since.elapsed() >= GIVES_WAY_AFTER);
            let lost = match oldest.map(|(number, held)| (*number, held.address)) {
                Some((number, of)) => {
                    // Dropping its end of the channel is what tells the connection, which closes itself.
                    places.vacate(number);
                    places.report(Lost::Oldest, of);
                    None
                }
                None => Some(Lost::Total),
            };
            if let Some(lost) = lost {
                places.report(lost, address);
                return Err(lost);
            }
        }
        places.last_number += 1;
        // Numbers grow, so the first entry of the table is always the oldest connection.
        let number = places.last_number;
        let (keeps, taken) = oneshot::channel();
        places.unproved.insert(number, Unproved { address, since: Instant::now(), _keeps: keeps });
        let held = places.by_address.entry(address).or_default();
        held.all += 1;
        held.unproved += 1;
        places.total += 1;
        places.measure();
        let proved = AtomicBool::new(false);
        let admission = Admission(Arc::new(Place { gate: self.clone(), address, number, proved }));
        Ok(Notice { admission, taken, deadline: None })
    }
}

impl Places {
    /// Takes a connection from among those whose client is unknown.
    fn vacate(&mut self, number: u64) {
        let Some(held) = self.unproved.remove(&number) else { return };
        if let Some(held) = self.by_address.get_mut(&held.address) {
            held.unproved -= 1;
        }
    }

    /// A connection has ended.
    fn leave(&mut self, number: u64, address: IpAddr) {
        self.vacate(number);
        self.total = self.total.saturating_sub(1);
        if let Some(held) = self.by_address.get_mut(&address) {
            held.all -= 1;
            // An address without connections is forgotten, or a scan would fill the table.
            if held.all == 0 {
                self.by_address.remove(&address);
            }
        }
        self.measure();
    }

    fn measure(&self) {
        let unproved = self.unproved.len();
        metrics::gauge!(CONNECTIONS, "client" => "unproved").set(unproved as f64);
        metrics::gauge!(CONNECTIONS, "client" => "proved").set(self.total.saturating_sub(unproved) as f64);
    }

    /// Counts, and logs now and then: whoever causes it must not fill the log.
    fn report(&mut self, lost: Lost, address: IpAddr) {
        metrics::counter!(REFUSED, "reason" => lost.code()).increment(1);
        let now = Instant::now();
        if self.logged.get(lost.code()).is_none_or(|last| now - *last >= LOG_EVERY) {
            self.logged.insert(lost.code(), now);
            tracing::warn!(
                %address, code = lost.code(), connections = self.total, unproved = self.unproved.len(),
                "connection closed: {lost}; more of this kind are counted in {REFUSED} and logged every {LOG_EVERY:?}",
            );
        }
    }
}

impl Admission {
    /// The client has sent a request with a good token: from now on only the limit of all connections counts.
    pub fn prove(&self) {
        // Before the place is given back: `poll_lost` may find its channel closed, and then asks whether this is why.
        if !self.0.proved.swap(true, Ordering::AcqRel) {
            let mut places = self.0.gate.0.places.lock();
            places.vacate(self.0.number);
            places.measure();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.0.places.lock().leave(self.number, self.address);
    }
}

impl Notice {
    pub(super) fn admission(&self) -> Admission {
        self.admission.clone()
    }

    /// The handshake is over: the time for the first request begins.
    pub(super) fn begin(&mut self) {
        self.deadline = Some(Box::pin(tokio::time::sleep(self.admission.0.gate.0.limits.first_request)));
    }

    /// Ready when the connection has to close. Pending for ever once its client has proved who it is.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if self.admission.0.proved.load(Ordering::Acquire) {
            // The timer is given back: a proxy's connection lasts for days.
            self.deadline = None;
            return Poll::Pending;
        }
        if Pin::new(&mut self.taken).poll(cx).is_ready() {
            // Proved at the same moment: the place was given back, not taken away.
            if self.admission.0.proved.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            return Poll::Ready(Lost::Oldest);
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        let mut places = self.admission.0.gate.0.places.lock();
        if let Some(address) = places.unproved.get(&self.admission.0.number).map(|held| held.address) {
            places.report(Lost::Late, address);
        }
        Poll::Ready(Lost::Late)
    }

    /// Waits until the connection has to close.
    pub(super) async fn lost(&mut self) -> Lost {
        std::future::poll_fn(|cx| self.poll_lost(cx)).await
    }
}

/// The address that counts for a limit: one client easily has all addresses of a /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        total: 6,
        unproved: 4,
        per_address: 4,
        unproved_per_address: 2,
        first_request: Duration::from_secs(10),
    };

    fn peer(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 40_000)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_few_places_until_its_clients_have_proved_who_they_are() {
        let gate = Gate::new(LIMITS);
        let first = gate.admit(peer("10.0.0.1")).unwrap();
        let _second = gate.admit(peer("10.0.0.1")).unwrap();

        assert_eq!(gate.admit(peer("::ffff:10.0.0.1")).unwrap_err(), Lost::Address);
        let _other = gate.admit(peer("10.0.0.2")).unwrap();
        first.admission().prove();
        let _third = gate.admit(peer("10.0.0.1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_network_of_ipv6_count_as_one() {
        let gate = Gate::new(LIMITS);
        let _held = [gate.admit(peer("fd00::1")).unwrap(), gate.admit(peer("fd00::2")).unwrap()];

        assert_eq!(gate.admit(peer("fd00::3")).unwrap_err(), Lost::Address);
        gate.admit(peer("fd00:0:0:1::1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_connection_gives_way_and_a_young_one_does_not() {
        let gate = Gate::new(LIMITS);
        let mut held: Vec<_> = (1..=4).map(|n| gate.admit(peer(&format!("10.0.0.{n}"))).unwrap()).collect();

        assert_eq!(gate.admit(peer("10.0.0.9")).unwrap_err(), Lost::Total);
        tokio::time::advance(GIVES_WAY_AFTER).await;
        let _newest = gate.admit(peer("10.0.0.9")).unwrap();

        assert_eq!(held[0].lost().await, Lost::Oldest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_good_token_ends_in_time_and_one_with_it_does_not() {
        let gate = Gate::new(LIMITS);
        let mut silent = gate.admit(peer("10.0.0.1")).unwrap();
        let mut proved = gate.admit(peer("10.0.0.1")).unwrap();
        silent.begin();
        proved.begin();
        proved.admission().prove();

        let begun = Instant::now();
        assert_eq!(silent.lost().await, Lost::Late);
        assert_eq!(begun.elapsed(), LIMITS.first_request);
        assert!(tokio::time::timeout(Duration::from_secs(3600), proved.lost()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_free_again_when_its_connection_ends() {
        let gate = Gate::new(LIMITS);
        for _ in 0..100 {
            let notice = gate.admit(peer("10.0.0.1")).unwrap();
            notice.admission().prove();
        }
        let _held = [gate.admit(peer("10.0.0.1")).unwrap(), gate.admit(peer("10.0.0.1")).unwrap()];

        assert_eq!(gate.0.places.lock().total, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_a_good_token_does_not_take_all_places_either() {
        let gate = Gate::new(LIMITS);
        let prove = |notice: Notice| {
            notice.admission().prove();
            notice
        };
        let _held: Vec<_> = (0..4).map(|_| prove(gate.admit(peer("10.0.0.1")).unwrap())).collect();

        assert_eq!(gate.admit(peer("10.0.0.1")).unwrap_err(), Lost::Address);
        gate.admit(peer("10.0.0.2")).unwrap();
    }

    #[test]
    fn descriptors_bound_all_connections() {
        assert_eq!(Limits::with_descriptors(Some(1024)).total, 768);
        assert_eq!(Limits::with_descriptors(Some(100)).total, 50);
        assert_eq!(Limits::with_descriptors(None).unproved, 1024);
    }
}
