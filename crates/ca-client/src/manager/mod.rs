//! Keeps the certificates of a proxy: fetches them when they are wanted, renews them, forgets them.
//! What is known and what is next is in `table`; where certificates come from is the source's business.

mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::Identity;
use parking_lot::Mutex;
use tls::WorkloadCertificate;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::source::{CertificateSource, SourceError};
use table::{Fetch, Now, Table, Want};

/// Until a source must have answered.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Urgency of a certificate. A second request can raise the priority of one that is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Renewal.
    Background,
    /// A workload has appeared and will want it soon.
    Warmup,
    /// A connection waits for it.
    RealTime,
}

/// Reason for a missing certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CertificateError {
    /// The last try has failed; a next one follows by itself.
    #[error("{}", tls::causes(.0))]
    Unavailable(Arc<SourceError>),
    /// The identity was forgotten while somebody waited for it.
    #[error("the identity was forgotten")]
    Forgotten,
    /// The manager's task has ended.
    #[error("the certificate manager has ended")]
    Ended,
}

impl CertificateError {
    /// Stable name for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(cause) => cause.code(),
            Self::Forgotten => "certificate_forgotten",
            Self::Ended => "certificate_manager_ended",
        }
    }
}

/// State of an identity in the dump; `Display` is Istio's text.
#[derive(Clone, Debug)]
pub enum State {
    /// A valid certificate is held.
    Available,
    /// Requested; no answer yet.
    Initializing,
    /// The last try has failed and nothing valid is held.
    Unavailable(CertificateError),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available => f.write_str("Available"),
            Self::Initializing => f.write_str("Initializing"),
            Self::Unavailable(error) => write!(f, "Unavailable: {error}"),
        }
    }
}

/// One identity in the dump.
#[derive(Clone, Debug)]
pub struct CertificateStatus {
    pub identity: Identity,
    pub state: State,
    /// Newest certificate, perhaps expired.
    pub certificate: Option<Arc<WorkloadCertificate>>,
}

/// Tells the time of day; replaced in tests.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Handle of the manager. Cheap to clone, usable from every thread; its task ends with the last handle.
#[derive(Clone)]
pub struct CertificateManager(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    table: Mutex<Table>,
    /// Something is to be fetched.
    wake: Notify,
    clock: Clock,
}

impl CertificateManager {
    /// Starts the task on the current runtime.
    pub fn spawn(source: Arc<dyn CertificateSource>) -> Self {
        Self::spawn_with_clock(source, Arc::new(SystemTime::now))
    }

    /// As [`CertificateManager::spawn`], with another time of day. Pauses are tokio's time all the same.
    pub fn spawn_with_clock(source: Arc<dyn CertificateSource>, clock: Clock) -> Self {
        let shared = Arc::new(Shared { table: Mutex::new(Table::default()), wake: Notify::new(), clock });
        let task = tokio::spawn(work(Arc::clone(&shared), source)).abort_handle();
        Self(Arc::new(Handle { shared, task }))
    }

    /// The certificate in force, or the next one that arrives. An error of the last try is returned at once while the next
    /// one is still due. Has no deadline of its own: a fetch has one. Dropping it is safe, the fetch continues.
    pub async fn get(
        &self,
        identity: &Identity,
        priority: Priority,
    ) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        let shared = &self.0.shared;
        let want = shared.table.lock().want(identity, priority, shared.now());
        let mut outcome = match want {
            Want::Ready(certificate) => return Ok(certificate),
            Want::Failed(error) => return Err(error),
            Want::Wait(outcome) => outcome,
        };
        shared.wake.notify_one();
        if outcome.changed().await.is_err() {
            return Err(CertificateError::Forgotten);
        }
        // Cloned out: the borrow is a lock, which must not live in the future.
        let result = outcome.borrow().clone();
        result.unwrap_or(Err(CertificateError::Ended))
    }

    /// As [`get`](Self::get), but waits for further attempts after a failed one, as long as the next begins before
    /// `until`; otherwise returns the error of the last. For a connection of a new pod, whose certificate authority may
    /// not know it yet. The last attempt may end after `until`: the caller bounds the whole. Dropping it is safe.
    pub async fn get_by(
        &self,
        identity: &Identity,
        priority: Priority,
        until: Instant,
    ) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        loop {
            let error = match self.get(identity, priority).await {
                Err(error @ CertificateError::Unavailable(_)) => error,
                ended => return ended,
            };
            // The block ends the lock before the sleep.
            let next = { self.0.shared.table.lock().next_attempt(identity) };
            match next {
                // `get` asks again after the pause and joins the attempt that is due then.
                Some(next) if next <= until => tokio::time::sleep_until(next).await,
                Some(_) | None => return Err(error),
            }
        }
    }

    /// The certificate in force, without waiting and without asking for one.
    pub fn current(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        let shared = &self.0.shared;
        shared.table.lock().current(identity, shared.now())
    }

    /// Has a certificate fetched that will be wanted soon. False when 256 wait already: it is then fetched when it is wanted.
    pub fn prefetch(&self, identity: &Identity) -> bool {
        let shared = &self.0.shared;
        let taken = shared.table.lock().prefetch(identity, shared.now());
        if taken {
            shared.wake.notify_one();
        } else {
            metrics::counter!("strake_certificate_prefetches_dropped_total").increment(1);
        }
        taken
    }

    /// Nobody needs this identity any more: drops its certificate; waiting callers get an error.
    pub fn forget(&self, identity: &Identity) {
        self.0.shared.table.lock().forget(identity);
    }

    /// Every identity that is held or wanted, in order.
    pub fn snapshot(&self) -> Vec<CertificateStatus> {
        let shared = &self.0.shared;
        shared.table.lock().snapshot(shared.now())
    }
}

impl fmt::Debug for CertificateManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateManager").finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn now(&self) -> Now {
        Now { instant: Instant::now(), wall: (self.clock)() }
    }
}

/// Tells waiters that nothing will come when the task ends, however it ends.
struct EndsTable(Arc<Shared>);

impl Drop for EndsTable {
    fn drop(&mut self) {
        self.0.table.lock().end();
    }
}

/// The manager's task: starts fetches and notes how they end.
async fn work(shared: Arc<Shared>, source: Arc<dyn CertificateSource>) {
    let _end = EndsTable(Arc::clone(&shared));
    let mut fetches = JoinSet::new();
    let mut running = HashMap::new();
    loop {
        // At most 8 at once, in the order of the queue. The block ends the lock before the spawn.
        while let Some(fetch) = { shared.table.lock().start(shared.now()) } {
            let task = fetches.spawn(run(Arc::clone(&source), fetch.identity.clone()));
            running.insert(task.id(), fetch);
        }
        // Read after the starts: what they have taken from the list must not wake the task again.
        let due = { shared.table.lock().next_due() };
        // Every arm may be dropped: the set keeps finished fetches, a stored wake-up stays stored.
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(ended) = fetches.join_next_with_id() => {
                let (id, result) = match ended {
                    Ok((id, result)) => (id, result),
                    // A panic of the source is a failed attempt; without this its identity would count as being fetched
                    // for ever.
                    Err(error) => (error.id(), Err(SourceError::Died)),
                };
                if let Some(fetch) = running.remove(&id) {
                    finish(&shared, &fetch, result);
                }
            }
            () = at(due), if due.is_some() => {}
        }
    }
}

async fn at(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

async fn run(source: Arc<dyn CertificateSource>, identity: Identity) -> Result<WorkloadCertificate, SourceError> {
    let result = tokio::time::timeout(FETCH_TIMEOUT, source.fetch(&identity)).await;
    result.unwrap_or(Err(SourceError::Timeout(FETCH_TIMEOUT)))
}

fn finish(shared: &Shared, fetch: &Fetch, result: Result<WorkloadCertificate, SourceError>) {
    let identity = &fetch.identity;
    match &result {
        Ok(certificate) => {
            let serial = &certificate.leaf().serial;
            tracing::debug!(%identity, serial, "certificate fetched");
            metrics::counter!("strake_certificate_fetches_total", "outcome" => "ok").increment(1);
        }
        Err(error) => {
            let cause = tls::causes(error);
            tracing::warn!(%identity, code = error.code(), error = cause, "failed to fetch a certificate");
            metrics::counter!("strake_certificate_fetches_total", "outcome" => error.code()).increment(1);
        }
    }
    shared.table.lock().finish(fetch, result, shared.now());
}
