//! Asks discovery about an address that the mesh does not know, before a connection to it passes through: it may be that of
//! a pod which discovery has not announced yet. What happens without an answer is in design note 0006.

mod absent;
mod outcome;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use model::view::{self, Route, RouteError, RouteKind};
use model::{Address, Change, NetworkAddress, State, Workload};
use parking_lot::Mutex;
use proto::ADDRESS_TYPE_URL;
use tokio::sync::watch;
use xds_client::{Client, Demander, Link, Names};

use absent::Absent;
use outcome::{Outcome, Reports};

/// Longest time that a connection waits for an answer, which usually takes about a millisecond. One lost segment on the way
/// to the control plane and back is sent again in this time (Linux: 200 ms, `TCP_RTO_MIN`).
const DEADLINE: Duration = Duration::from_millis(500);

/// There is something at the address that discovery knows and that this proxy cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no plaintext to {0}: discovery describes this address in a way that cannot be read")]
pub struct UnreadableAddress(pub SocketAddr);

/// Reason for which an address has no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Unreadable(#[from] UnreadableAddress),
}

/// Handle for questions about addresses; clones share it. Without a control plane it asks nobody.
#[derive(Clone, Debug)]
pub struct Lookups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    control_plane: OnceLock<ControlPlane>,
    absent: Mutex<Absent>,
    /// The stream on which a question was not answered in time, as it was then. As long as it is the same nobody waits, and
    /// one question at a time finds out whether it answers again.
    silent: Mutex<Option<Link>>,
    is_probing: AtomicBool,
    reports: Reports,
    /// [`DEADLINE`], but in tests of what arrives in time on a machine that is busy.
    deadline: Duration,
}

#[derive(Debug)]
struct ControlPlane {
    demander: Demander,
    link: watch::Receiver<Link>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::with_deadline(DEADLINE)
    }
}

impl Lookups {
    fn with_deadline(deadline: Duration) -> Self {
        Self(Arc::new(Shared {
            control_plane: OnceLock::new(),
            absent: Mutex::new(Absent::new(Instant::now())),
            silent: Mutex::new(None),
            is_probing: AtomicBool::new(false),
            reports: Reports::default(),
            deadline,
        }))
    }

    /// From now on, asks over the streams of this client. The first one stays.
    pub(super) fn ask_over(&self, client: &Client) {
        let _ = self.0.control_plane.set(ControlPlane { demander: client.demander(), link: client.link() });
    }

    /// Notes changes that are about to be applied: what was said about their addresses before does not count any more.
    pub(super) fn announced(&self, changes: &[Change<Address>]) {
        let mut absent = self.0.absent.lock();
        if absent.is_empty() {
            return;
        }
        for change in changes {
            match change {
                Change::Upsert(Address::Workload(workload)) => {
                    for ip in &workload.workload_ips {
                        absent.forget(&NetworkAddress::new(workload.network.clone(), *ip));
                    }
                }
                Change::Upsert(Address::Service(service)) => service.vips.iter().for_each(|vip| absent.forget(vip)),
                // Of a removed resource the addresses are not known here; those of the mesh are refused anyway.
                Change::Remove(_) => {}
            }
        }
    }

    /// Returns the route of a connection that `source` opens to an address for which `view::outbound` has returned `first`:
    /// [`RouteKind::Unknown`], or [`RouteError::Departed`]. Asks discovery, waits for at most half a second, and then
    /// decides on what is known; an address that stays unknown passes through. Dropping it is safe.
    ///
    /// # Errors
    /// When there is no route to what the address has turned out to be, or that cannot be read.
    pub async fn route(
        &self,
        state: &State,
        source: &Workload,
        destination: SocketAddr,
        first: Result<Route, RouteError>,
    ) -> Result<Route, LookupError> {
        let Some(control_plane) = self.0.control_plane.get() else { return passed(first) };
        let address = NetworkAddress::new(source.network.clone(), destination.ip());
        // A pod that has departed may be there again at any moment, so of its address nothing is remembered.
        let is_departed = first.is_err();
        if !is_departed && self.0.absent.lock().contains(&address, Instant::now()) {
            self.0.reports.count(Outcome::Remembered, &address);
            return passed(first);
        }
        let asked = self.ask(control_plane, &address).await;
        // Whatever became of the question: a response may have brought the answer meanwhile.
        let route = view::outbound(state, source, destination);
        let outcome = match (is_unsettled(&route), asked) {
            (false, _) => Outcome::Known,
            (true, Ok(())) => Outcome::Absent,
            (true, Err(outcome)) => outcome,
        };
        self.0.reports.count(outcome, &address);
        match outcome {
            Outcome::Absent if !is_departed => self.0.absent.lock().remember(address, Instant::now()),
            Outcome::Unreadable => return Err(UnreadableAddress(destination).into()),
            Outcome::Known
            | Outcome::Absent
            | Outcome::Remembered
            | Outcome::Unanswered
            | Outcome::Disconnected
            | Outcome::Unsupported
            | Outcome::Full => {}
        }
        passed(route)
    }

    /// Waits until discovery has answered and the answer is applied.
    async fn ask(&self, control_plane: &ControlPlane, address: &NetworkAddress) -> Result<(), Outcome> {
        let link = *control_plane.link.borrow();
        match link {
            Link::Up { names: Names::Unsupported, .. } => return Err(Outcome::Unsupported),
            Link::Up { .. } if *self.0.silent.lock() == Some(link) => {
                self.probe(control_plane, address);
                return Err(Outcome::Unanswered);
            }
            // Streams end by design now and then, and the next one is there within milliseconds.
            Link::Down { since } if since.elapsed() >= self.0.deadline => return Err(Outcome::Disconnected),
            Link::Up { .. } | Link::Down { .. } => {}
        }
        let begun = Instant::now();
        match tokio::time::timeout(self.0.deadline, demand(&control_plane.demander, address)).await {
            Ok(answer) => {
                answer?;
                metrics::histogram!("strake_address_lookup_duration_seconds").record(begun.elapsed().as_secs_f64());
                Ok(())
            }
            Err(_) => Err(self.unanswered(control_plane, link)),
        }
    }

    /// Notes that no answer came in time; `before`: the stream when the question was asked.
    fn unanswered(&self, control_plane: &ControlPlane, before: Link) -> Outcome {
        let now = *control_plane.link.borrow();
        if matches!(now, Link::Down { .. }) {
            return Outcome::Disconnected;
        }
        // A stream that is new, or that has just shown what it is, gets a question of its own.
        if now == before {
            *self.0.silent.lock() = Some(now);
        }
        Outcome::Unanswered
    }

    /// Finds out whether a stream that was silent answers again, unless somebody else is at it.
    fn probe(&self, control_plane: &ControlPlane, address: &NetworkAddress) {
        if self.0.is_probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let probe = Probe(self.0.clone());
        let (demander, address) = (control_plane.demander.clone(), address.clone());
        // Ends by itself after the deadline at the latest.
        tokio::spawn(async move {
            let answer = tokio::time::timeout(probe.0.deadline, demand(&demander, &address)).await;
            if matches!(answer, Ok(Ok(()) | Err(Outcome::Unreadable))) {
                *probe.0.silent.lock() = None;
            }
        });
    }
}

/// The only question that is under way on a silent stream.
struct Probe(Arc<Shared>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.is_probing.store(false, Ordering::Relaxed);
    }
}

async fn demand(demander: &Demander, address: &NetworkAddress) -> Result<(), Outcome> {
    demander.demand(ADDRESS_TYPE_URL, &address.to_string()).await.map_err(Outcome::from)
}

/// May discovery know more about the destination than the proxy does?
#[must_use]
pub fn is_unsettled(route: &Result<Route, RouteError>) -> bool {
    matches!(route, Ok(Route { kind: RouteKind::Unknown, .. }) | Err(RouteError::Departed(_)))
}

/// Lets pass through what is still unknown after the question: it is outside of the mesh, as far as anybody can say.
fn passed(route: Result<Route, RouteError>) -> Result<Route, LookupError> {
    let mut route = route?;
    if route.kind == RouteKind::Unknown {
        route.kind = RouteKind::Passthrough;
    }
    Ok(route)
}

#[cfg(test)]
mod tests;
