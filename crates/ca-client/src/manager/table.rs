//! State of the manager: certificates, the queue of fetches in their order, what is due when.
//! It neither waits nor fetches; time is handed in.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "the caller hands the time in: tests choose it"))]

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::Identity;
use runtime::Backoff;
use tls::WorkloadCertificate;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{CertificateError, CertificateStatus, Priority, State};
use crate::source::SourceError;

/// Fetches at the same time.
const MAX_IN_FLIGHT: usize = 8;
/// Certificates that wait without anybody waiting for them.
const MAX_PREFETCHES: usize = 256;
/// Pause after the first failure of a renewal, and the longest one.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(150);
/// Pause after the first failure of an identity that never had a certificate. Istio's proxy waits 1 s here too; but the
/// usual reason is a pod that started before the authority knows it, which lasts some tens of milliseconds, and the
/// pod's first connections wait for it. After four failures the pauses are as long as those of a renewal.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// A certificate that is past its half life when it arrives is renewed after this, not in a loop.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// The present, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: SystemTime,
}

type Outcome = Option<Result<Arc<WorkloadCertificate>, CertificateError>>;

/// Answer to somebody who wants a certificate.
pub(super) enum Want {
    Ready(Arc<WorkloadCertificate>),
    Failed(CertificateError),
    Wait(watch::Receiver<Outcome>),
}

/// A fetch that was started.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) identity: Identity,
    /// Tells a fetch of an identity that was forgotten and came back from one of its second life.
    life: u64,
}

/// A place in the queue: highest priority first, then first come.
type Ticket = (Reverse<Priority>, u64, Identity);

#[derive(Debug)]
enum Work {
    Idle,
    Queued(Reverse<Priority>, u64),
    Fetching,
}

#[derive(Debug)]
struct Entry {
    life: u64,
    certificate: Option<Arc<WorkloadCertificate>>,
    error: Option<Arc<SourceError>>,
    work: Work,
    /// Renewal or next try.
    due: Option<Instant>,
    /// Until then an error is answered from memory.
    quiet_until: Option<Instant>,
    backoff: Backoff,
    outcome: watch::Sender<Outcome>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Identity, Entry>,
    queue: BTreeSet<Ticket>,
    due: BTreeSet<(Instant, Identity)>,
    in_flight: usize,
    last_number: u64,
    ended: bool,
}

impl Table {
    pub(super) fn want(&mut self, identity: &Identity, priority: Priority, now: Now) -> Want {
        if self.ended {
            return Want::Failed(CertificateError::Ended);
        }
        let entry = self.entry(identity);
        if let Some(certificate) = entry.valid(now.wall) {
            return Want::Ready(Arc::clone(certificate));
        }
        // Between two attempts the last error is the answer: a thousand connections of a pod whose certificate is
        // refused must not become a thousand requests.
        if let (Some(error), Some(until)) = (&entry.error, entry.quiet_until)
            && until > now.instant
        {
            return Want::Failed(CertificateError::Unavailable(Arc::clone(error)));
        }
        // Subscribed before the fetch is queued, so that its outcome cannot be missed.
        let outcome = entry.outcome.subscribe();
        self.enqueue(identity, priority);
        Want::Wait(outcome)
    }

    pub(super) fn current(&self, identity: &Identity, now: Now) -> Option<Arc<WorkloadCertificate>> {
        self.entries.get(identity)?.valid(now.wall).cloned()
    }

    /// When the attempt after the last failure begins, or has begun; `None` when none has failed.
    pub(super) fn next_attempt(&self, identity: &Identity) -> Option<Instant> {
        self.entries.get(identity)?.quiet_until
    }

    /// False when too many wait.
    pub(super) fn prefetch(&mut self, identity: &Identity, now: Now) -> bool {
        // A prefetch of a known identity costs no place in the queue: it is queued, held or being fetched already.
        let known = self.entries.contains_key(identity);
        if !known && self.queue.len() >= MAX_PREFETCHES {
            return false;
        }
        drop(self.want(identity, Priority::Warmup, now));
        true
    }

    pub(super) fn forget(&mut self, identity: &Identity) {
        let Some(entry) = self.entries.remove(identity) else { return };
        match entry.work {
            Work::Queued(priority, number) => {
                self.queue.remove(&(priority, number, identity.clone()));
            }
            Work::Idle | Work::Fetching => {}
        }
        if let Some(due) = entry.due {
            self.due.remove(&(due, identity.clone()));
        }
        // A fetch that is under way continues; `finish` drops its result, as the life has changed.
        entry.outcome.send_replace(Some(Err(CertificateError::Forgotten)));
    }

    pub(super) fn snapshot(&self, now: Now) -> Vec<CertificateStatus> {
        let mut all: Vec<CertificateStatus> = self
            .entries
            .iter()
            .map(|(identity, entry)| CertificateStatus {
                identity: identity.clone(),
                state: entry.state(now.wall),
                certificate: entry.certificate.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.identity.cmp(&b.identity));
        all
    }

    /// The next fetch to run, if there is one and room for it.
    pub(super) fn start(&mut self, now: Now) -> Option<Fetch> {
        while let Some((due, identity)) = self.due.first().cloned()
            && due <= now.instant
        {
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&identity) {
                entry.due = None;
            }
            // Renewals go last: they are due at half of the lifetime, so hours are left for them.
            self.enqueue(&identity, Priority::Background);
        }
        if self.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        let (_, _, identity) = self.queue.pop_first()?;
        let entry = self.entries.get_mut(&identity)?;
        entry.work = Work::Fetching;
        self.in_flight += 1;
        Some(Fetch { life: entry.life, identity })
    }

    /// When `start` has to be asked again although nothing has happened.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Notes how a fetch ended and tells who waits for it.
    pub(super) fn finish(&mut self, fetch: &Fetch, result: Result<WorkloadCertificate, SourceError>, now: Now) {
        self.in_flight -= 1;
        // Forgotten, or forgotten and requested again, while it was fetched: the result is for the old life.
        let Some(entry) = self.entries.get_mut(&fetch.identity).filter(|entry| entry.life == fetch.life) else {
            return;
        };
        entry.work = Work::Idle;
        let (outcome, due) = match result {
            Ok(certificate) => entry.renewed(Arc::new(certificate), now),
            Err(error) => entry.failed(Arc::new(error), now),
        };
        if let Some(old) = entry.due.replace(due) {
            self.due.remove(&(old, fetch.identity.clone()));
        }
        self.due.insert((due, fetch.identity.clone()));
        entry.outcome.send_replace(Some(outcome));
    }

    /// Nothing will be fetched any more.
    pub(super) fn end(&mut self) {
        // Later requests fail at once, instead of waiting for a task that is gone.
        self.ended = true;
        for entry in self.entries.values() {
            entry.outcome.send_replace(Some(Err(CertificateError::Ended)));
        }
    }

    fn entry(&mut self, identity: &Identity) -> &mut Entry {
        // A number of its own for every life; the queue uses the same counter for its order.
        let life = self.last_number;
        self.last_number += 1;
        self.entries.entry(identity.clone()).or_insert_with(|| Entry::new(life))
    }

    /// Puts an identity into the queue, or moves it forward there.
    fn enqueue(&mut self, identity: &Identity, priority: Priority) {
        let Some(entry) = self.entries.get_mut(identity) else { return };
        match entry.work {
            // Its result will do for whoever asks now.
            Work::Fetching => return,
            // Keeps its place: moving it to the end of its class would let steady requests delay it without end.
            Work::Queued(Reverse(waiting), _) if waiting >= priority => return,
            Work::Queued(waiting, number) => {
                self.queue.remove(&(waiting, number, identity.clone()));
            }
            Work::Idle => {}
        }
        self.last_number += 1;
        let number = self.last_number;
        entry.work = Work::Queued(Reverse(priority), number);
        self.queue.insert((Reverse(priority), number, identity.clone()));
    }
}

impl Entry {
    fn new(life: u64) -> Self {
        Self {
            life,
            certificate: None,
            error: None,
            work: Work::Idle,
            due: None,
            quiet_until: None,
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
            outcome: watch::channel(None).0,
        }
    }

    fn valid(&self, wall: SystemTime) -> Option<&Arc<WorkloadCertificate>> {
        self.certificate.as_ref().filter(|certificate| wall < certificate.not_after())
    }

    fn state(&self, wall: SystemTime) -> State {
        match (self.valid(wall), &self.error) {
            (Some(_), _) => State::Available,
            (None, Some(error)) => State::Unavailable(CertificateError::Unavailable(Arc::clone(error))),
            (None, None) => State::Initializing,
        }
    }

    fn renewed(
        &mut self,
        certificate: Arc<WorkloadCertificate>,
        now: Now,
    ) -> (Result<Arc<WorkloadCertificate>, CertificateError>, Instant) {
        // From now on a certificate is held while attempts fail, so pauses begin at 1 s and not at 100 ms.
        self.backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        self.error = None;
        self.quiet_until = None;
        // On the wall clock, which certificates are about; waited for on the monotonic one, which nobody sets.
        let renewal = until(half_life(&certificate), now.wall).max(MIN_RENEWAL);
        self.certificate = Some(Arc::clone(&certificate));
        (Ok(certificate), now.instant + renewal)
    }

    /// A certificate that is still valid stays in force, and is what waiters get.
    fn failed(
        &mut self,
        error: Arc<SourceError>,
        now: Now,
    ) -> (Result<Arc<WorkloadCertificate>, CertificateError>, Instant) {
        let pause = self.backoff.pause();
        self.error = Some(Arc::clone(&error));
        self.quiet_until = Some(now.instant + pause);
        match self.valid(now.wall).cloned() {
            Some(certificate) => {
                // Tried again at the expiry at the latest, however long the pause has become: from then on connections
                // need it.
                let expiry = until(certificate.not_after(), now.wall).max(MIN_RENEWAL);
                (Ok(certificate), now.instant + pause.min(expiry))
            }
            None => (Err(CertificateError::Unavailable(error)), now.instant + pause),
        }
    }
}

fn half_life(certificate: &WorkloadCertificate) -> SystemTime {
    let (from, to) = (certificate.not_before(), certificate.not_after());
    from + to.duration_since(from).unwrap_or_default() / 2
}

fn until(moment: SystemTime, wall: SystemTime) -> Duration {
    moment.duration_since(wall).unwrap_or_default()
}
