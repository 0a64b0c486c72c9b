//! Election of the replica that writes, by a Lease. It does not write anything else.

use std::time::Duration;

use rand::RngExt as _;
use runtime::Backoff;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::ApiError;
use crate::api::Api;
use crate::connect::ApiServer;
use crate::lease::{Lease, LeaseName, Spec};
use crate::verb::Verb;

/// Time from one renewal to the next.
const RENEW: Duration = Duration::from_secs(5);

/// Time that a renewal is good for, from the moment its request began. Less than the 15 s after which others take the Lease:
/// there never are two leaders, however the clocks of machines differ.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// Time between two looks of a replica that does not lead, and after a failure.
const LOOK: std::ops::Range<u64> = 1500..2500;

/// Times to the next looks when the Lease is not what it was. A Lease that cannot be made, for instance because its namespace is
/// missing, is answered like one that has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// Longest time for a request. A renewal can be tried twice before it is late.
const ANSWER: Duration = Duration::from_secs(4);

/// The Lease and the name under which this replica holds it.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    pub server: ApiServer,
    pub namespace: String,
    pub name: String,
    /// Name of the replica, unique among them: its pod's name.
    pub identity: String,
}

/// State of an election for those who depend on it. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Returns true if this replica is the leader now. Ends by the clock, also when nothing else runs.
    pub fn is_leading(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this replica leads; `false`: the election has ended.
    pub async fn acquired(&mut self) -> bool {
        let leads = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        self.0.wait_for(leads).await.is_ok()
    }
}

/// A replica that takes part. It leaves, without releasing the Lease, when it is dropped.
#[derive(Debug)]
pub struct Election {
    leadership: Leadership,
    release: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Election {
    /// Begins to take part.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: ElectionConfig) -> Self {
        let (until, leadership) = watch::channel(None);
        let (release, released) = oneshot::channel();
        let ElectionConfig { server, namespace, name, identity } = config;
        let candidate = Candidate {
            api: Api::new(server.client()),
            lease: LeaseName { namespace, name },
            identity,
            until,
            held: None,
            other: None,
            is_told: false,
            look_again: Backoff::new(LOOK_AGAIN, LOOK_AGAIN_MAX),
        };
        let task = tokio::spawn(candidate.run(released));
        Self { leadership: Leadership(leadership), release: Some(release), task }
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Ends, and lets another replica lead at once instead of after 15 s.
    pub async fn release(mut self) {
        if let Some(release) = self.release.take() {
            // The task may have ended by itself.
            let _: Result<(), ()> = release.send(());
        }
        // Its last request has a deadline.
        let _: Result<(), tokio::task::JoinError> = (&mut self.task).await;
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Version of another holder's Lease, and when it was first seen.
#[derive(Debug)]
struct Other {
    version: String,
    at: Instant,
}

struct Candidate {
    api: Api,
    lease: LeaseName,
    identity: String,
    until: watch::Sender<Option<Instant>>,
    /// The Lease as this replica wrote it last.
    held: Option<Lease>,
    other: Option<Other>,
    /// A failure was logged, and nothing has succeeded since.
    is_told: bool,
    /// Pauses while the Lease is not what it was.
    look_again: Backoff,
}

impl Candidate {
    async fn run(mut self, mut released: oneshot::Receiver<()>) {
        loop {
            let pause = self.take_part().await;
            // Between two renewals: a request is never dropped half way.
            tokio::select! {
                () = sleep(self.pause(pause)) => {}
                _ = &mut released => break,
            }
        }
        self.give_up().await;
    }

    fn leads(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Not longer than until the leadership ends, which has to be noticed.
    fn pause(&self, pause: Duration) -> Duration {
        let left = self.until.borrow().map(|until| until.saturating_duration_since(Instant::now()));
        // At least 1 ms, or the loop would spin until the leadership ends.
        left.map_or(pause, |left| pause.min(left.max(Duration::from_millis(1))))
    }

    /// Tries to take or renew the Lease, and returns the time to the next attempt.
    async fn take_part(&mut self) -> Duration {
        // From the beginning of the request, not from its answer: the other replicas count from when they see the
        // renewal, which is later.
        let began = Instant::now();
        let attempt = timeout(ANSWER, self.attempt()).await.unwrap_or(Err(ApiError::Timeout(ANSWER)));
        if attempt.is_ok() {
            self.look_again.reset();
        }
        match attempt {
            Ok(true) => {
                self.is_told = false;
                self.set(Some(began + GOOD_FOR));
                return RENEW;
            }
            Ok(false) => {
                self.is_told = false;
                self.set(None);
            }
            Err(error) => {
                // Another replica may hold it by now: the next attempt looks.
                let has_changed = error.is_conflict() || error.is_not_found();
                if has_changed {
                    self.held = None;
                }
                if !std::mem::replace(&mut self.is_told, true) {
                    let resource = format!("lease {}/{}", self.lease.namespace, self.lease.name);
                    tracing::warn!("{}; no status is written without it", error.explain(Verb::Update, &resource));
                }
                // A renewal that fails once does not end the leadership: the last one is good for 10 s.
                if !self.leads() {
                    self.set(None);
                }
                if has_changed {
                    return self.look_again.pause();
                }
            }
        }
        // At random, so that replicas that start together do not go on colliding.
        Duration::from_millis(rand::rng().random_range(LOOK))
    }

    /// Takes or renews the Lease if that is possible; returns true if it is held then.
    async fn attempt(&mut self) -> Result<bool, ApiError> {
        let lease = match &self.held {
            // Nobody else writes to it while it is ours: a renewal is one request.
            Some(lease) => lease.clone(),
            None => match self.lease.get(&self.api).await {
                Ok(lease) => lease,
                Err(error) if error.is_not_found() => {
                    let spec = Spec::default().held_by(&self.identity);
                    self.held = Some(self.lease.create(&self.api, &spec).await?);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            },
        };
        let holder = lease.spec.holder();
        if holder.is_none() || holder == Some(&self.identity) || self.is_abandoned(&lease) {
            let spec = lease.spec.held_by(&self.identity);
            self.held = Some(self.lease.update(&self.api, &lease.version, &spec).await?);
            self.other = None;
            return Ok(true);
        }
        Ok(false)
    }

    /// Notes the Lease of another holder; returns true if it was not renewed for as long as it says, by our own clock.
    fn is_abandoned(&mut self, lease: &Lease) -> bool {
        match &self.other {
            Some(other) if other.version == lease.version => other.at.elapsed() >= lease.spec.duration(),
            Some(_) | None => {
                // Seen for the first time in this version, so its holder lives. The times inside of the Lease are of
                // another machine's clock.
                self.other = Some(Other { version: lease.version.clone(), at: Instant::now() });
                false
            }
        }
    }

    fn set(&self, until: Option<Instant>) {
        let led = self.until.send_replace(until).is_some();
        match (led, until.is_some()) {
            (false, true) => tracing::info!(identity = self.identity, "leader: this replica writes statuses"),
            (true, false) => {
                tracing::warn!(identity = self.identity, "no longer leader: another replica writes statuses")
            }
            (true, true) | (false, false) => {}
        }
    }

    async fn give_up(mut self) {
        let was_leading = self.leads();
        // Before the Lease: the next leader must not meet a writer.
        self.set(None);
        let Some(lease) = self.held.take().filter(|_| was_leading) else { return };
        let released = lease.spec.released();
        match timeout(ANSWER, self.lease.update(&self.api, &lease.version, &released)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::info!(%error, "failed to release the lease; another replica takes it after 15 s")
            }
            Err(_) => tracing::info!("failed to release the lease in time; another replica takes it after 15 s"),
        }
    }
}
